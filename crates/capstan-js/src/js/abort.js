// AbortController and AbortSignal, with as much of event targets as they need.
import { apply, defineProperty, freeze, harden } from 'capstan:lockdown';
import { offer, named } from 'capstan:endowments';

const key = {}; // only this module makes signals
let abort; // (signal, reason): set by the class below, which alone sees the private fields
let attach; // (signal, callback): the runtime's own listener
const aborted = () => named('AbortError', 'This operation was aborted');

class AbortSignal {
  #aborted = false;
  #reason;
  #listeners = new Set(); // { callback, once }
  #own = [];
  #onabort = null;
  constructor(secret) {
    if (secret !== key) throw TypeError('Illegal constructor');
  }
  static {
    attach = (signal, callback) => signal.#own.push(callback);
    abort = (signal, reason) => {
      if (signal.#aborted) return;
      signal.#aborted = true;
      signal.#reason = reason;
      for (const callback of signal.#own) callback(reason);
      const event = freeze({ type: 'abort', target: signal, currentTarget: signal, bubbles: false, cancelable: false, defaultPrevented: false });
      const call = (callback, self, name) => {
        try {
          apply(name === undefined ? callback : callback[name], self, [event]);
        } catch (error) {
          Promise.reject(error);
        }
      };
      if (typeof signal.#onabort === 'function') call(signal.#onabort, signal);
      for (const listener of [...signal.#listeners]) {
        if (listener.once) signal.#listeners.delete(listener);
        if (typeof listener.callback === 'function') call(listener.callback, signal);
        else call(listener.callback, listener.callback, 'handleEvent');
      }
    };
  }
  static abort(reason = aborted()) {
    const signal = new AbortSignal(key);
    abort(signal, reason);
    return signal;
  }
  static any(signals) {
    const all = [...signals];
    const signal = new AbortSignal(key);
    for (const one of all) {
      if (one.aborted) {
        abort(signal, one.reason);
        return signal;
      }
    }
    for (const one of all) attach(one, reason => abort(signal, reason));
    return signal;
  }
  get aborted() { return this.#aborted; }
  get reason() { return this.#reason; }
  get onabort() { return this.#onabort; }
  set onabort(callback) { this.#onabort = callback; }
  throwIfAborted() {
    if (this.#aborted) throw this.#reason;
  }
  addEventListener(type, callback, options = undefined) {
    if (type !== 'abort' || callback === null || callback === undefined) return;
    for (const known of this.#listeners) if (known.callback === callback) return;
    this.#listeners.add({ callback, once: Boolean(options?.once) });
  }
  removeEventListener(type, callback) {
    for (const known of this.#listeners) if (type === 'abort' && known.callback === callback) this.#listeners.delete(known);
  }
}

class AbortController {
  #signal = new AbortSignal(key);
  get signal() { return this.#signal; }
  abort(reason = aborted()) { abort(this.#signal, reason); }
}
for (const Class of [AbortSignal, AbortController]) defineProperty(Class.prototype, Symbol.toStringTag, { value: Class.name });

export const onAbort = (signal, callback) => attach(signal, callback);
export const isSignal = value => value instanceof AbortSignal;
offer({ AbortController, AbortSignal: harden(AbortSignal) });
