// Written by valetkey: makes Node send HTTPS through the proxy of the environment.
//
// Before 22.21 Node reads no proxy variable at all; from then on NODE_USE_ENV_PROXY=1 makes it, but not for agents
// that a library makes for itself (stripe) or does without (ws). Three places are changed: connections of
// https.Agent, https requests that bring their own connection, and the dispatcher of fetch where Node has no proxy of
// its own. Agents that know a proxy keep it. Nothing is printed, and a failure in here changes nothing.
'use strict';

(() => {
  const mark = Symbol.for('valetkey.preload');
  if (globalThis[mark]) return;
  Object.defineProperty(globalThis, mark, { value: true });

  const http = require('node:http');
  const https = require('node:https');
  const net = require('node:net');
  const tls = require('node:tls');

  const proxy = readProxy();
  if (!proxy) return;
  const direct = readDirect();

  /** http://[user:password@]host:port; nothing else is understood, and then nothing is changed. */
  function readProxy() {
    const text = process.env.https_proxy || process.env.HTTPS_PROXY;
    if (!text) return null;
    try {
      const url = new URL(text.includes('://') ? text : `http://${text}`);
      if (url.protocol !== 'http:' || !url.hostname) return null;
      const decoded = [url.username, url.password].map(decodeURIComponent).join(':');
      const authorization = decoded === ':' ? '' : `Basic ${Buffer.from(decoded).toString('base64')}`;
      return { host: bare(url.hostname), port: Number(url.port || 80), authorization };
    } catch {
      return null;
    }
  }

  /** An IPv6 address without its brackets. */
  function bare(host) {
    return String(host).replace(/^\[(.*)\]$/, '$1');
  }

  /** NO_PROXY: true for what is reached directly. Names match with what is below them; ranges match addresses. */
  function readDirect() {
    const entries = (process.env.no_proxy || process.env.NO_PROXY || '').toLowerCase().split(/[\s,]+/).filter(Boolean);
    const ranges = new net.BlockList();
    const names = [];
    for (const entry of entries) {
      const range = /^\[?([0-9a-f.:]+)\]?\/(\d+)$/.exec(entry);
      if (!range) {
        names.push(entry);
        continue;
      }
      try {
        ranges.addSubnet(range[1], Number(range[2]), net.isIPv6(range[1]) ? 'ipv6' : 'ipv4');
      } catch {
        // No range that we know: it then names nothing.
      }
    }
    return (host, port) => {
      const name = bare(host || 'localhost').toLowerCase().replace(/\.$/, '');
      const family = net.isIP(name);
      if (family && ranges.check(name, family === 6 ? 'ipv6' : 'ipv4')) return true;
      return names.some((entry) => {
        if (entry === '*') return true;
        const parts = /^(.*[^:]|\[.*\]):(\d+)$/.exec(entry);
        const hasPort = parts && (entry.startsWith('[') || !parts[1].includes(':'));
        if (hasPort && Number(parts[2]) !== Number(port)) return false;
        const wanted = bare(hasPort ? parts[1] : entry).replace(/^\*?\./, '').replace(/^\*/, '');
        return wanted !== '' && (name === wanted || name.endsWith(`.${wanted}`));
      });
    };
  }

  /** A socket through the proxy to host:port: `done(error)` or `done(null, socket)`, once. */
  function tunnel(host, port, done) {
    const socket = net.connect({ host: proxy.host, port: proxy.port });
    const authority = `${net.isIPv6(bare(host)) ? `[${bare(host)}]` : host}:${port}`;
    let head = Buffer.alloc(0);
    const finish = (error) => {
      socket.removeListener('data', read);
      socket.removeListener('error', finish);
      socket.removeListener('close', closed);
      socket.setTimeout(0);
      if (error) {
        socket.on('error', () => {});
        socket.destroy();
        done(error);
      } else {
        done(null, socket);
      }
    };
    const fail = (text) => finish(Object.assign(new Error(text), { code: 'ECONNREFUSED' }));
    const closed = () => fail(`the proxy ended the connection before the tunnel to ${authority} was there`);
    const read = (chunk) => {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf('\r\n\r\n');
      if (end < 0) {
        if (head.length > 65536) fail('the proxy did not answer in HTTP');
        return;
      }
      const line = head.toString('latin1', 0, head.indexOf('\r\n'));
      if (!/^HTTP\/1\.[01] 2\d\d/.test(line)) {
        fail(`the proxy refused the tunnel to ${authority}: ${line}`);
        return;
      }
      socket.pause();
      if (head.length > end + 4) socket.unshift(head.subarray(end + 4));
      finish(null);
    };
    socket.on('data', read);
    socket.on('error', finish);
    socket.on('close', closed);
    socket.setTimeout(120000, () => fail(`no tunnel to ${authority} within two minutes`));
    socket.once('connect', () => {
      const authorization = proxy.authorization && `Proxy-Authorization: ${proxy.authorization}\r\n`;
      socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${authorization}\r\n`);
    });
  }

  /** True for a connection that goes to another machine by name and port. */
  function goesOut(options) {
    if (options.socketPath || options.socket) return false;
    const host = options.host || options.hostname;
    return Boolean(host) && !direct(host, options.port || 443);
  }

  // 1. Every https.Agent, a library's own too.
  const connect = https.Agent.prototype.createConnection;
  https.Agent.prototype.createConnection = function createConnection(...args) {
    const [options, done] = args;
    // Since 24.5 and 22.21 an agent may have the environment's proxy itself.
    const isOurs =
      typeof options === 'object' && options !== null && typeof done === 'function' && goesOut(options) &&
      !(this.options && this.options.proxyEnv);
    if (!isOurs) return connect.apply(this, args);
    tunnel(options.host || options.hostname, options.port || 443, (error, socket) => {
      if (error) return done(error);
      let secured;
      try {
        secured = connect.call(this, { ...options, socket });
      } catch (thrown) {
        socket.destroy();
        return done(thrown);
      }
      return done(null, secured);
    });
    return undefined;
  };

  // 2. Requests without an agent that bring their own way to connect, as those of ws do.
  const plain = new https.Agent();
  const request = https.request;
  const withAgent = (input) =>
    input && typeof input === 'object' && !(input instanceof URL) && typeof input.createConnection === 'function' &&
    (input.agent === undefined || input.agent === null) && goesOut(input)
      ? Object.assign(Object.create(Object.getPrototypeOf(input)), input, { agent: plain, createConnection: undefined })
      : input;
  https.request = function httpsRequest(...args) {
    return request.apply(this, args.map((arg, at) => (at < 2 ? withAgent(arg) : arg)));
  };
  https.get = function get(...args) {
    const made = https.request(...args);
    made.end();
    return made;
  };

  // 3. fetch, where Node has no proxy for it. Its dispatcher is made at its first use, so ours is put there then;
  // one that somebody set stays.
  const hasOwnProxy = Boolean(http.globalAgent.options && http.globalAgent.options.proxyEnv);
  const fetch = globalThis.fetch;
  if (typeof fetch === 'function' && !hasOwnProxy) {
    let isDone = false;
    const install = () => {
      isDone = true;
      // Reading one of its classes loads it.
      void globalThis.Headers;
      const symbol = Symbol.for('undici.globalDispatcher.1');
      const current = globalThis[symbol];
      if (!current || current.constructor.name !== 'Agent') return;
      const ours = new current.constructor({ connect: connectFetch });
      Object.defineProperty(globalThis, symbol, { value: ours, writable: true, enumerable: false, configurable: false });
    };
    const wrapped = function (input, init = undefined) {
      if (!isDone) {
        try {
          install();
        } catch {
          // Then it goes as it always did.
        }
      }
      return Reflect.apply(fetch, this, [input, init]);
    };
    Object.defineProperty(wrapped, 'name', { value: 'fetch' });
    globalThis.fetch = wrapped;
  }

  /** How undici connects: to an origin, with or without TLS. */
  function connectFetch({ hostname, protocol, port, servername }, callback) {
    const isSecure = protocol === 'https:';
    const host = bare(hostname);
    const number = Number(port || (isSecure ? 443 : 80));
    const secure = (socket) => {
      const options = { servername: servername || (net.isIP(host) ? undefined : host), ALPNProtocols: ['http/1.1'] };
      return tls.connect(socket ? { ...options, socket } : { ...options, host, port: number });
    };
    const settle = (socket, event) => {
      const failed = (error) => callback(error);
      socket.once('error', failed);
      socket.once(event, () => {
        socket.removeListener('error', failed);
        callback(null, socket);
      });
    };
    if (!isSecure) return settle(net.connect({ host, port: number }), 'connect');
    if (direct(host, number)) return settle(secure(null), 'secureConnect');
    return tunnel(host, number, (error, socket) => (error ? callback(error) : settle(secure(socket), 'secureConnect')));
  }

  // import { request } from 'node:https' sees what was changed, too.
  require('node:module').syncBuiltinESMExports();
})();
