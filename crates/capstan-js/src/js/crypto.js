// Web Crypto: random bytes, digests, message authentication. What is not here says so.
import { host, defineProperty, harden } from 'capstan:lockdown';
import { offer, named } from 'capstan:endowments';
import { bytesOf } from 'capstan:codecs';

const RANDOM_BYTES_MAX = 65536;
const key = {}; // only this module makes these objects
const INTEGERS = new Set(['Int8Array', 'Uint8Array', 'Uint8ClampedArray', 'Int16Array', 'Uint16Array', 'Int32Array', 'Uint32Array', 'BigInt64Array', 'BigUint64Array']);
const typedTag = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Int8Array.prototype), Symbol.toStringTag).get;

const unsupported = what => named('NotSupportedError', `${what} is not supported`);
const hashOf = algorithm => {
  const name = String(typeof algorithm === 'object' && algorithm !== null ? algorithm.name : algorithm).toUpperCase();
  if (!['SHA-256', 'SHA-384', 'SHA-512'].includes(name)) throw unsupported(name);
  return name;
};
const nameOf = algorithm => String(typeof algorithm === 'object' && algorithm !== null ? algorithm.name : algorithm).toUpperCase();

let open; // CryptoKey -> { secret, hash, usages, extractable }
class CryptoKey {
  #inside;
  constructor(secret, inside) {
    if (secret !== key) throw TypeError('Illegal constructor');
    this.#inside = inside;
  }
  static { open = one => one.#inside; }
  get type() { return 'secret'; }
  get extractable() { return this.#inside.extractable; }
  get algorithm() { return harden({ name: 'HMAC', hash: { name: this.#inside.hash }, length: this.#inside.secret.length * 8 }); }
  get usages() { return harden([...this.#inside.usages]); }
}
const hmacKey = (secret, algorithm, extractable, usages) => {
  const used = [...usages].map(String);
  if (used.length === 0 || used.some(usage => usage !== 'sign' && usage !== 'verify')) throw named('SyntaxError', 'an HMAC key signs and verifies');
  if (secret.length === 0) throw named('DataError', 'the key is empty');
  return harden(new CryptoKey(key, { secret, hash: hashOf(algorithm.hash), extractable: Boolean(extractable), usages: used }));
};
const use = (one, usage) => {
  const inside = open(one);
  if (!inside.usages.includes(usage)) throw named('InvalidAccessError', `the key is not for ${usage}`);
  return inside;
};
const copied = source => new Uint8Array(bytesOf(source));
const random = count => host.randomBytes(count);

class SubtleCrypto {
  constructor(secret) {
    if (secret !== key) throw TypeError('Illegal constructor');
  }
  async digest(algorithm, data) { return host.digest(hashOf(algorithm), bytesOf(data)).buffer; }
  async importKey(format, data, algorithm, extractable, usages) {
    if (nameOf(algorithm) !== 'HMAC' || format !== 'raw') throw unsupported(`importKey of ${String(format)} for ${nameOf(algorithm)}`);
    return hmacKey(copied(data), algorithm, extractable, usages);
  }
  async generateKey(algorithm, extractable, usages) {
    if (nameOf(algorithm) !== 'HMAC') throw unsupported(`generateKey for ${nameOf(algorithm)}`);
    const { length = hashOf(algorithm.hash) === 'SHA-256' ? 512 : 1024 } = algorithm;
    if (!(length >= 8 && length <= 65536 && length % 8 === 0)) throw named('OperationError', 'the length is not a number of whole bytes');
    return hmacKey(random(length / 8), algorithm, extractable, usages);
  }
  async exportKey(format, one) {
    const { secret, extractable } = open(one);
    if (!extractable) throw named('InvalidAccessError', 'the key is not extractable');
    if (format !== 'raw') throw unsupported(`exportKey as ${String(format)}`);
    return copied(secret).buffer;
  }
  async sign(_algorithm, one, data) {
    const { secret, hash } = use(one, 'sign');
    return host.hmac(hash, secret, bytesOf(data)).buffer;
  }
  async verify(_algorithm, one, signature, data) {
    const { secret, hash } = use(one, 'verify');
    return host.hmacVerify(hash, secret, bytesOf(data), bytesOf(signature));
  }
}
for (const name of ['encrypt', 'decrypt', 'deriveBits', 'deriveKey', 'wrapKey', 'unwrapKey']) {
  defineProperty(SubtleCrypto.prototype, name, { value: { async [name]() { throw unsupported(name); } }[name], writable: true, configurable: true });
}
for (const Class of [SubtleCrypto, CryptoKey]) defineProperty(Class.prototype, Symbol.toStringTag, { value: Class.name });

const subtle = new SubtleCrypto(key);
const crypto = {
  subtle,
  getRandomValues(array) {
    if (!ArrayBuffer.isView(array) || !INTEGERS.has(typedTag.call(array))) throw named('TypeMismatchError', 'an array of integers is needed', TypeError);
    if (array.byteLength > RANDOM_BYTES_MAX) throw named('QuotaExceededError', `at most ${RANDOM_BYTES_MAX} bytes at once`);
    bytesOf(array).set(random(array.byteLength));
    return array;
  },
  randomUUID() {
    const bytes = random(16);
    bytes[6] = (bytes[6] & 15) | 64;
    bytes[8] = (bytes[8] & 63) | 128;
    const hex = [...bytes].map(byte => byte.toString(16).padStart(2, '0')).join('');
    return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
  },
};
offer({ crypto, SubtleCrypto });
