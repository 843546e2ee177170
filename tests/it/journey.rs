//! Each stage of a request, seen from outside.

mod arriving;
mod relaying;
