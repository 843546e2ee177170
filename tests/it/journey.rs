//! Each stage of a request, seen from outside.

mod again;
mod arriving;
mod authority;
mod credentials;
mod dialects;
mod early;
mod events;
mod expecting;
mod grpc;
mod large;
mod leases;
mod limits;
mod mixing;
mod parent;
mod process;
mod proxied;
mod proxy_auth;
mod quick;
mod rates;
mod relaying;
mod services;
mod starting;
mod stopping;
mod tunnelling;
mod websocket;
mod wire;
