// Text to bytes and back: UTF-8 and base64.
import { host, defineProperty } from 'capstan:lockdown';
import { offer, named } from 'capstan:endowments';

// The bytes of a buffer or of a view of one.
export const bytesOf = source => {
  if (source === undefined) return new Uint8Array(0);
  if (ArrayBuffer.isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  throw TypeError('a buffer or a view of one is needed');
};
const encode = text => host.utf8Encode(String(text).toWellFormed());

class TextEncoder {
  get encoding() { return 'utf-8'; }
  encode(text = '') { return encode(text); }
  encodeInto(text, into) {
    if (!(into instanceof Uint8Array)) throw TypeError('encodeInto() needs a Uint8Array');
    let read = 0;
    let written = 0;
    for (const character of String(text).toWellFormed()) {
      const bytes = encode(character);
      if (written + bytes.length > into.length) break;
      into.set(bytes, written);
      read += character.length;
      written += bytes.length;
    }
    return { read, written };
  }
}

const UTF8 = new Set(['utf-8', 'utf8', 'unicode-1-1-utf-8', 'unicode11utf8', 'unicode20utf8', 'x-unicode20utf8']);
class TextDecoder {
  #fatal;
  #ignoreBOM;
  #rest = new Uint8Array(0);
  #begun = false;
  constructor(label = 'utf-8', { fatal = false, ignoreBOM = false } = {}) {
    if (!UTF8.has(String(label).trim().toLowerCase())) throw RangeError(`encoding ${JSON.stringify(String(label))} is not supported`);
    this.#fatal = Boolean(fatal);
    this.#ignoreBOM = Boolean(ignoreBOM);
  }
  get encoding() { return 'utf-8'; }
  get fatal() { return this.#fatal; }
  get ignoreBOM() { return this.#ignoreBOM; }
  decode(source = undefined, { stream = false } = {}) {
    const added = bytesOf(source);
    const bytes = new Uint8Array(this.#rest.length + added.length);
    bytes.set(this.#rest);
    bytes.set(added, this.#rest.length);
    const whole = stream ? bytes.length - host.utf8Unfinished(bytes) : bytes.length;
    const text = host.utf8Decode(bytes.subarray(0, whole), this.#fatal);
    this.#rest = bytes.slice(whole);
    const first = !this.#begun && whole > 0;
    this.#begun = stream && (this.#begun || whole > 0);
    if (text === undefined) {
      this.#rest = new Uint8Array(0);
      throw TypeError('the encoded data was not valid utf-8');
    }
    return first && !this.#ignoreBOM && text.startsWith('\uFEFF') ? text.slice(1) : text;
  }
}
for (const Class of [TextEncoder, TextDecoder]) defineProperty(Class.prototype, Symbol.toStringTag, { value: Class.name });

const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const invalid = what => named('InvalidCharacterError', what);
const btoa = value => {
  const text = String(value);
  const parts = [];
  for (let i = 0; i < text.length; i += 3) {
    const codes = [text.charCodeAt(i), text.charCodeAt(i + 1), text.charCodeAt(i + 2)];
    if (codes.some(code => code > 255)) throw invalid('btoa() takes characters of one byte only');
    const [a, b, c] = codes;
    parts.push(DIGITS[a >> 2], DIGITS[((a & 3) << 4) | (b >> 4)],
      i + 1 < text.length ? DIGITS[((b & 15) << 2) | (c >> 6)] : '=', i + 2 < text.length ? DIGITS[c & 63] : '=');
  }
  return parts.join('');
};
const atob = value => {
  let text = String(value).replace(/[\t\n\f\r ]+/g, '');
  if (text.length % 4 === 0) text = text.replace(/={1,2}$/, '');
  if (text.length % 4 === 1 || /[^A-Za-z0-9+/]/.test(text)) throw invalid('the string is not correctly encoded base64');
  const parts = [];
  for (let i = 0; i < text.length; i += 4) {
    const digits = [0, 1, 2, 3].map(at => (i + at < text.length ? DIGITS.indexOf(text[i + at]) : 0));
    const bits = (digits[0] << 18) | (digits[1] << 12) | (digits[2] << 6) | digits[3];
    parts.push(String.fromCharCode(bits >> 16));
    if (i + 2 < text.length) parts.push(String.fromCharCode((bits >> 8) & 255));
    if (i + 3 < text.length) parts.push(String.fromCharCode(bits & 255));
  }
  return parts.join('');
};

offer({ TextEncoder, TextDecoder, btoa: { btoa(value) { return btoa(value); } }.btoa, atob: { atob(value) { return atob(value); } }.atob });
