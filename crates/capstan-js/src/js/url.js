// URL and URLSearchParams over the host's parser.
import { host, defineProperty } from 'capstan:lockdown';
import { offer } from 'capstan:endowments';

// As `host.urlParse` gives them.
const PARTS = ['href', 'protocol', 'username', 'password', 'host', 'hostname', 'port', 'pathname', 'search', 'hash', 'origin'];
const text = value => String(value).toWellFormed();
const parse = (url, base) => host.urlParse(text(url), base === undefined ? undefined : text(base));

const decodeForm = part => {
  const bytes = [...host.utf8Encode(part.replaceAll('+', ' '))];
  const out = [];
  for (let i = 0; i < bytes.length; i += 1) {
    const digits = bytes[i] === 37 ? String.fromCharCode(bytes[i + 1], bytes[i + 2]) : '';
    if (/^[0-9A-Fa-f]{2}$/.test(digits)) {
      out.push(parseInt(digits, 16));
      i += 2;
    } else out.push(bytes[i]);
  }
  return host.utf8Decode(new Uint8Array(out), false);
};
const encodeForm = part => {
  let out = '';
  for (const byte of host.utf8Encode(part)) {
    const character = String.fromCharCode(byte);
    if (byte === 32) out += '+';
    else out += /[A-Za-z0-9*\-._]/.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return out;
};

let reload; // (params, query): what the URL's own query became
let bind; // (params, changed): tells the URL
class URLSearchParams {
  #list = [];
  #changed;
  static {
    const load = (params, query) => {
      params.#list = query.split('&').filter(part => part !== '').map(part => {
        const at = part.indexOf('=');
        return at < 0 ? [decodeForm(part), ''] : [decodeForm(part.slice(0, at)), decodeForm(part.slice(at + 1))];
      });
    };
    reload = load;
    bind = (params, changed) => { params.#changed = changed; };
  }
  constructor(init = '') {
    if (typeof init === 'object' && init !== null && typeof init[Symbol.iterator] === 'function') {
      for (const pair of init) {
        const [name, value, ...more] = pair;
        if (value === undefined || more.length > 0) throw TypeError('each pair needs a name and a value');
        this.#list.push([text(name), text(value)]);
      }
    } else if (typeof init === 'object' && init !== null) {
      for (const name of Object.keys(init)) this.#list.push([text(name), text(init[name])]);
    } else {
      const query = text(init);
      reload(this, query.startsWith('?') ? query.slice(1) : query);
    }
  }
  #touch() { this.#changed?.(this.toString()); }
  get size() { return this.#list.length; }
  append(name, value) {
    this.#list.push([text(name), text(value)]);
    this.#touch();
  }
  delete(name, value = undefined) {
    this.#list = this.#list.filter(([n, v]) => n !== text(name) || (value !== undefined && v !== text(value)));
    this.#touch();
  }
  get(name) { return this.#list.find(([n]) => n === text(name))?.[1] ?? null; }
  getAll(name) { return this.#list.filter(([n]) => n === text(name)).map(([, v]) => v); }
  has(name, value = undefined) { return this.#list.some(([n, v]) => n === text(name) && (value === undefined || v === text(value))); }
  set(name, value) {
    const at = this.#list.findIndex(([n]) => n === text(name));
    if (at < 0) this.#list.push([text(name), text(value)]);
    else {
      this.#list[at][1] = text(value);
      this.#list = this.#list.filter(([n], i) => i <= at || n !== text(name));
    }
    this.#touch();
  }
  sort() {
    this.#list.sort(([a], [b]) => (a < b ? -1 : Number(a > b)));
    this.#touch();
  }
  forEach(callback, self = undefined) { for (const [name, value] of this) callback.call(self, value, name, this); }
  *entries() { for (let i = 0; i < this.#list.length; i += 1) yield [...this.#list[i]]; }
  *keys() { for (const [name] of this.entries()) yield name; }
  *values() { for (const [, value] of this.entries()) yield value; }
  toString() { return this.#list.map(([name, value]) => `${encodeForm(name)}=${encodeForm(value)}`).join('&'); }
}
defineProperty(URLSearchParams.prototype, Symbol.iterator, { value: URLSearchParams.prototype.entries });

class URL {
  #parts;
  #params;
  constructor(url, base = undefined) {
    this.#parts = parse(url, base);
    if (this.#parts === undefined) throw TypeError(`Invalid URL: ${JSON.stringify(text(url))}`);
  }
  static canParse(url, base = undefined) { return parse(url, base) !== undefined; }
  static parse(url, base = undefined) { return URL.canParse(url, base) ? new URL(url, base) : null; }
  static {
    for (const [at, name] of PARTS.entries()) {
      const property = { get() { return this.#parts[at]; }, configurable: true, enumerable: true };
      if (name !== 'origin') {
        property.set = function set(value) {
          const parts = host.urlSet(this.#parts[0], name, text(value));
          if (parts !== undefined) {
            this.#parts = parts;
            if (this.#params) reload(this.#params, this.#parts[8].slice(1));
          } else if (name === 'href') throw TypeError(`Invalid URL: ${JSON.stringify(text(value))}`);
        };
      }
      defineProperty(URL.prototype, name, property);
    }
  }
  get searchParams() {
    if (!this.#params) {
      this.#params = new URLSearchParams(this.#parts[8]);
      bind(this.#params, query => { this.#parts = host.urlSet(this.#parts[0], 'search', query) ?? this.#parts; });
    }
    return this.#params;
  }
  toString() { return this.#parts[0]; }
  toJSON() { return this.#parts[0]; }
}
for (const Class of [URL, URLSearchParams]) defineProperty(Class.prototype, Symbol.toStringTag, { value: Class.name });

export { URL };
offer({ URL, URLSearchParams });
