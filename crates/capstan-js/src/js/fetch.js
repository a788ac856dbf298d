// fetch (04 §3): the request is checked here, made by the host once its crank is durable, and checked there on every hop.
import { host, defineProperty, isObject } from 'capstan:lockdown';
import { offer, named } from 'capstan:endowments';
import { bytesOf } from 'capstan:codecs';
import { URL } from 'capstan:url';
import { isSignal, onAbort } from 'capstan:abort';

const text = value => String(value).toWellFormed();
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

class Headers {
  #list = []; // [lower-case name, value], in order
  constructor(init = undefined) {
    if (init === undefined || init === null) return;
    const pairs = typeof init[Symbol.iterator] === 'function' ? [...init] : Object.entries(init);
    for (const [name, value] of pairs) this.append(name, value);
  }
  #name(name) {
    const known = text(name);
    if (!TOKEN.test(known)) throw TypeError(`${JSON.stringify(known)} is no name of a header`);
    return known.toLowerCase();
  }
  append(name, value) {
    const known = text(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, '');
    if (/[\0\n\r]/.test(known)) throw TypeError('a header has one line');
    this.#list.push([this.#name(name), known]);
  }
  set(name, value) {
    this.delete(name);
    this.append(name, value);
  }
  delete(name) { this.#list = this.#list.filter(([known]) => known !== this.#name(name)); }
  has(name) { return this.#list.some(([known]) => known === this.#name(name)); }
  get(name) {
    const values = this.#list.filter(([known]) => known === this.#name(name)).map(([, value]) => value);
    return values.length === 0 ? null : values.join(', ');
  }
  getSetCookie() { return this.#list.filter(([known]) => known === 'set-cookie').map(([, value]) => value); }
  forEach(callback, self = undefined) { for (const [name, value] of this) callback.call(self, value, name, this); }
  *entries() { for (const name of [...new Set(this.#list.map(([known]) => known))].sort()) yield [name, this.get(name)]; }
  *keys() { for (const [name] of this.entries()) yield name; }
  *values() { for (const [, value] of this.entries()) yield value; }
}
defineProperty(Headers.prototype, Symbol.iterator, { value: Headers.prototype.entries });

// The bytes of a body, and the type that it implies.
const readBody = body => {
  if (body === undefined || body === null) return [undefined, undefined];
  if (ArrayBuffer.isView(body) || body instanceof ArrayBuffer) return [new Uint8Array(bytesOf(body)), undefined];
  const kind = isObject(body) && body[Symbol.toStringTag] === 'URLSearchParams' ? 'application/x-www-form-urlencoded' : 'text/plain';
  return [host.utf8Encode(text(body)), `${kind};charset=UTF-8`];
};

class Body {
  #bytes;
  #used = false;
  constructor(bytes) { this.#bytes = bytes; }
  static bytesOf(body) { return body.#bytes; }
  #take() {
    if (this.#used) throw TypeError('the body was read before');
    this.#used = this.#bytes !== undefined;
    return this.#bytes ?? new Uint8Array(0);
  }
  get bodyUsed() { return this.#used; }
  async bytes() { return this.#take(); }
  async arrayBuffer() { return this.#take().buffer; }
  async text() {
    const whole = host.utf8Decode(this.#take(), false);
    return whole.startsWith('\uFEFF') ? whole.slice(1) : whole;
  }
  async json() { return JSON.parse(await this.text()); }
}
const bodyBytes = Body.bytesOf;
delete Body.bytesOf;

class Request extends Body {
  #url;
  #method;
  #headers;
  #redirect;
  #signal;
  constructor(input, init = {}) {
    const from = input instanceof Request ? input : undefined;
    const [bytes, type] = readBody(init.body);
    super(bytes ?? (from && bodyBytes(from)));
    this.#url = from ? from.url : new URL(text(input)).href;
    const method = text(init.method ?? from?.method ?? 'GET');
    if (!TOKEN.test(method) || /^(connect|trace|track)$/i.test(method)) throw TypeError(`${JSON.stringify(method)} is no method to fetch with`);
    this.#method = /^(delete|get|head|options|post|put)$/i.test(method) ? method.toUpperCase() : method;
    if ((this.#method === 'GET' || this.#method === 'HEAD') && bodyBytes(this) !== undefined) throw TypeError(`a ${this.#method} has no body`);
    this.#headers = new Headers(init.headers ?? from?.headers);
    if (type !== undefined && !this.#headers.has('content-type')) this.#headers.set('content-type', type);
    this.#redirect = text(init.redirect ?? from?.redirect ?? 'same-host');
    if (!['same-host', 'follow', 'error', 'manual'].includes(this.#redirect)) throw TypeError(`redirect cannot be ${JSON.stringify(this.#redirect)}`);
    this.#signal = init.signal ?? from?.signal;
    if (this.#signal !== undefined && !isSignal(this.#signal)) throw TypeError('signal must be an AbortSignal');
  }
  get url() { return this.#url; }
  get method() { return this.#method; }
  get headers() { return this.#headers; }
  get redirect() { return this.#redirect; }
  get signal() { return this.#signal; }
  clone() { return new Request(this); }
}

let describe; // (response, facts): what the host told
class Response extends Body {
  #status;
  #statusText;
  #headers;
  #url = '';
  #redirected = false;
  static {
    describe = (response, url, redirected) => {
      response.#url = url;
      response.#redirected = redirected;
    };
  }
  constructor(body = undefined, { status = 200, statusText = '', headers = undefined } = {}) {
    const [bytes, type] = readBody(body);
    super(bytes);
    this.#status = Number(status);
    if (!(this.#status >= 200 && this.#status <= 599)) throw RangeError('a status is between 200 and 599');
    this.#statusText = text(statusText);
    this.#headers = new Headers(headers);
    if (type !== undefined && !this.#headers.has('content-type')) this.#headers.set('content-type', type);
  }
  static json(value, init = undefined) { return new Response(JSON.stringify(value), { ...init, headers: { 'content-type': 'application/json', ...init?.headers } }); }
  get status() { return this.#status; }
  get statusText() { return this.#statusText; }
  get ok() { return this.#status >= 200 && this.#status < 300; }
  get headers() { return this.#headers; }
  get url() { return this.#url; }
  get redirected() { return this.#redirected; }
  get type() { return 'basic'; }
  clone() {
    const copy = new Response(bodyBytes(this), { status: this.#status, statusText: this.#statusText, headers: this.#headers });
    describe(copy, this.#url, this.#redirected);
    return copy;
  }
}
for (const Class of [Headers, Request, Response]) defineProperty(Class.prototype, Symbol.toStringTag, { value: Class.name });

// Ports and schemes do not matter; files are no network.
const check = url => {
  const { protocol, hostname } = new URL(url);
  if (protocol === 'file:') throw Error('file: URLs cannot be fetched');
  if (!host.allowedHosts.includes(hostname)) throw Error(`Invalid host: ${hostname}`);
};

const waiting = new Map(); // id -> { resolve, reject }
let last = 0;
const log = line => {
  try {
    host.log('debug', line);
  } catch {
    // A log that fails is no reason for a request to fail.
  }
};
const fetch = async (input, init = undefined) => {
  const request = new Request(input, init);
  const { signal } = request;
  check(request.url);
  signal?.throwIfAborted();
  const id = last += 1;
  const { promise, resolve, reject } = Promise.withResolvers();
  waiting.set(id, { resolve, reject });
  host.fetch(id, request.method, request.url, [...request.headers].flat(), bodyBytes(request), request.redirect);
  log(`fetch ${request.method} ${request.url}`);
  if (signal !== undefined) {
    onAbort(signal, reason => {
      if (waiting.delete(id)) reject(reason);
    });
  }
  return promise;
};
const take = id => {
  const kit = waiting.get(id);
  waiting.delete(id);
  return kit;
};
// The host tells how a request ended.
export const failed = (id, why) => take(id)?.reject(/^(Invalid host|redirected|file:)/.test(why) ? Error(why) : named('TypeError', `fetch failed: ${why}`, TypeError));
export const fetched = (id, status, url, redirected, flat, bytes) => {
  const kit = take(id);
  if (kit === undefined) return;
  try {
    const headers = [];
    for (let i = 0; i < flat.length; i += 2) headers.push([flat[i], flat[i + 1]]);
    const response = new Response(bytes, { status, headers });
    describe(response, url, redirected);
    kit.resolve(response);
  } catch (error) {
    kit.reject(error);
  }
};

offer({ fetch: { fetch(input, init = undefined) { return fetch(input, init); } }.fetch, Request, Headers, Response });
