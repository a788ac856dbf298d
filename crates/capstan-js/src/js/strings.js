// Searches in strings that take linear time. The engine's own are quadratic for long needles, and nothing stops
// them at a vat's deadline.
import { defineProperty, getOwnPropertyDescriptor, apply, isObject, uncurry } from 'capstan:lockdown';

const S = String.prototype;
const native = {};
for (const name of ['indexOf', 'lastIndexOf', 'includes', 'split', 'replace', 'replaceAll', 'startsWith', 'slice', 'charCodeAt']) native[name] = uncurry(S[name]);
const { startsWith, slice, charCodeAt } = native;
const sourceOf = uncurry(getOwnPropertyDescriptor(RegExp.prototype, 'source').get);
const RegExpPrototype = RegExp.prototype;
const { max, min, trunc } = Math;
const { isNaN } = Number;

const SHORT = 64; // the engine's search costs at most this much for each unit of the text
const HEAD = 32;
const WORK_PER_UNIT = 8;

// Crochemore and Perrin's two-way search: linear time, constant space. `at(text, i)` reads a unit.
const twoWay = (needle, at) => {
  const n = needle.length;
  const maximalSuffix = ascending => {
    let [ms, j, k, p] = [-1, 0, 1, 1];
    while (j + k < n) {
      const a = at(needle, j + k);
      const b = at(needle, ms + k);
      if (a === b) {
        if (k !== p) k += 1;
        else {
          j += p;
          k = 1;
        }
      } else if (a < b === ascending) {
        j += k;
        k = 1;
        p = j - ms;
      } else {
        ms = j;
        j = ms + 1;
        k = 1;
        p = 1;
      }
    }
    return [ms, p];
  };
  const [up, upPeriod] = maximalSuffix(true);
  const [down, downPeriod] = maximalSuffix(false);
  const cut = max(up, down);
  let period = up > down ? upPeriod : downPeriod;
  let repeats = true;
  for (let i = 0; i <= cut && repeats; i += 1) repeats = i + period < n && at(needle, i) === at(needle, i + period);
  if (!repeats) period = max(cut + 1, n - cut - 1) + 1;
  return (text, from) => {
    let known = -1; // this much of the needle's front is known to match
    for (let j = from; j <= text.length - n;) {
      let i = max(cut, known) + 1;
      while (i < n && at(needle, i) === at(text, i + j)) i += 1;
      if (i < n) {
        j += i - cut;
        known = -1;
        continue;
      }
      i = cut;
      while (i > known && at(needle, i) === at(text, i + j)) i -= 1;
      if (i <= known) return j;
      j += period;
      if (repeats) known = n - period - 1;
    }
    return -1;
  };
};

// Finds a long needle from the front, in one text, again and again. The engine looks for its head, which is fast;
// when too many candidates fail, the two-way search takes over.
const finder = (text, needle) => {
  const head = slice(needle, 0, HEAD);
  let work = -64 * needle.length;
  let careful;
  return from => {
    for (let at = from; careful === undefined;) {
      at = native.indexOf(text, head, at);
      if (at < 0 || at > text.length - needle.length) return -1;
      if (startsWith(text, needle, at)) return at;
      at += 1;
      from = at;
      work += needle.length;
      if (work > WORK_PER_UNIT * at) careful = twoWay(needle, charCodeAt);
    }
    return careful(text, from);
  };
};
const fromEnd = (text, i) => charCodeAt(text, text.length - 1 - i);

const textOf = (value, name) => {
  if (value === undefined || value === null) throw TypeError(`String.prototype.${name} called on null or undefined`);
  return typeof value === 'string' ? value : `${value}`;
};
const integer = value => {
  const number = trunc(+value);
  return isNaN(number) ? 0 : number;
};
const isRegExp = value => {
  if (!isObject(value)) return false;
  const matcher = value[Symbol.match];
  if (matcher !== undefined) return !!matcher;
  if (value === RegExpPrototype) return false;
  try {
    sourceOf(value);
    return true;
  } catch {
    return false;
  }
};
const methodOf = (value, symbol) => (isObject(value) ? value[symbol] ?? undefined : undefined);

// What a replacement's `$` patterns stand for; a plain search has no groups.
const substituted = (replacement, text, needle, at) => {
  let out = '';
  let done = 0;
  for (let i = native.indexOf(replacement, '$'); i >= 0 && i + 1 < replacement.length; i = native.indexOf(replacement, '$', i)) {
    const expansion = { __proto__: null, $: () => '$', '&': () => needle, '`': () => slice(text, 0, at), "'": () => slice(text, at + needle.length) }[replacement[i + 1]];
    if (expansion === undefined) i += 1;
    else {
      out += slice(replacement, done, i) + expansion();
      i += 2;
      done = i;
    }
  }
  return out + slice(replacement, done);
};
const replaced = (text, needle, value, all) => {
  const find = finder(text, needle);
  let out = '';
  let done = 0;
  for (let at = find(0); at >= 0; at = all ? find(done) : -1) {
    out += slice(text, done, at) + (typeof value === 'function' ? `${value(needle, at, text)}` : substituted(value, text, needle, at));
    done = at + needle.length;
  }
  return out + slice(text, done);
};
const replacing = (subject, search, value, name) => {
  const text = textOf(subject, name);
  const needle = `${search}`;
  const by = typeof value === 'function' ? value : `${value}`;
  return needle.length <= SHORT ? native[name](text, needle, by) : replaced(text, needle, by, name === 'replaceAll');
};

const methods = {
  indexOf(search, position = undefined) {
    const text = textOf(this, 'indexOf');
    const needle = `${search}`;
    if (needle.length <= SHORT) return native.indexOf(text, needle, position);
    return finder(text, needle)(max(0, integer(position)));
  },
  lastIndexOf(search, position = undefined) {
    const text = textOf(this, 'lastIndexOf');
    const needle = `${search}`;
    if (needle.length <= SHORT) return native.lastIndexOf(text, needle, position);
    const number = +position;
    const last = text.length - needle.length;
    if (last < 0) return -1;
    const at = isNaN(number) ? last : min(max(trunc(number), 0), last);
    const found = twoWay(needle, fromEnd)(text, last - at);
    return found < 0 ? -1 : last - found;
  },
  includes(search, position = undefined) {
    const text = textOf(this, 'includes');
    if (isRegExp(search)) throw TypeError('String.prototype.includes does not take a regular expression');
    const needle = `${search}`;
    if (needle.length <= SHORT) return native.includes(text, needle, position);
    return finder(text, needle)(max(0, integer(position))) >= 0;
  },
  split(separator, limit) {
    if (this === undefined || this === null) textOf(this, 'split');
    const splitter = methodOf(separator, Symbol.split);
    if (splitter !== undefined) return apply(splitter, separator, [this, limit]);
    const text = textOf(this, 'split');
    const most = limit === undefined ? 2 ** 32 - 1 : limit >>> 0;
    if (separator === undefined) return native.split(text, undefined, most);
    const needle = `${separator}`;
    if (needle.length <= SHORT) return native.split(text, needle, most);
    const parts = [];
    const find = finder(text, needle);
    let done = 0;
    for (let at = find(0); at >= 0 && parts.length < most; at = find(done)) {
      parts[parts.length] = slice(text, done, at);
      done = at + needle.length;
    }
    if (parts.length < most) parts[parts.length] = slice(text, done);
    return parts;
  },
  replace(search, value) {
    if (this === undefined || this === null) textOf(this, 'replace');
    const replacer = methodOf(search, Symbol.replace);
    if (replacer !== undefined) return apply(replacer, search, [this, value]);
    return replacing(this, search, value, 'replace');
  },
  replaceAll(search, value) {
    if (this === undefined || this === null) textOf(this, 'replaceAll');
    if (isRegExp(search) && !native.includes(textOf(search.flags, 'replaceAll'), 'g')) throw TypeError('replaceAll needs a global regular expression');
    const replacer = methodOf(search, Symbol.replace);
    if (replacer !== undefined) return apply(replacer, search, [this, value]);
    return replacing(this, search, value, 'replaceAll');
  },
};

// Puts them in place of the engine's; the realm must still be open.
export const replaceSearches = () => {
  for (const name of Object.keys(methods)) defineProperty(S, name, { value: methods[name] });
};
