// What the source of a vat may use, as TypeScript sees it: the modules that the runtime serves, and its globals.
// Written by `capstan types`. Put it where your tsconfig finds it, or refer to it:
//   /// <reference path="./capstan.d.ts" />

declare module 'capstan' {
  // ---- References and eventual sends.

  /** A local object that may be passed to other vats. */
  export interface RemotableMark {
    readonly [Symbol.toStringTag]: string;
  }
  export type Remotable<T> = T & RemotableMark;
  /** Something, or a promise of it. */
  export type ERef<T> = T | PromiseLike<T>;
  /** What a method gives when it is called through `E`. */
  export type Eventual<T> = {
    readonly [K in keyof T]: T[K] extends (...args: infer A) => infer R ? (...args: { [I in keyof A]: ERef<A[I]> }) => Promise<Awaited<R>> : never;
  };
  export interface EventualSend {
    /** Calls later, also across vats and kernels: `E(target).method(...args)` gives a promise of the answer. */
    <T>(target: ERef<T>): Eventual<T>;
    /** The same, but nobody is told the answer. */
    sendOnly<T>(target: ERef<T>): { readonly [K in keyof T]: T[K] extends (...args: infer A) => unknown ? (...args: A) => void : never };
    when<T, U = T, V = never>(target: ERef<T>, onFulfilled?: (value: T) => U | PromiseLike<U>, onRejected?: (reason: unknown) => V | PromiseLike<V>): Promise<U | V>;
    resolve<T>(target: ERef<T>): Promise<T>;
    get<T>(target: ERef<T>): { readonly [K in keyof T]: Promise<T[K]> };
  }
  export const E: EventualSend;
  /** Makes an object of methods passable under an interface name. */
  export function Far<T extends object>(name: string, methods?: T): Remotable<T>;

  export type PassStyle =
    | 'undefined' | 'null' | 'boolean' | 'number' | 'bigint' | 'string' | 'symbol'
    | 'copyArray' | 'copyRecord' | 'tagged' | 'error' | 'promise' | 'remotable';
  /** How a hardened value passes; throws, with the reason, if it does not. */
  export function passStyleOf(value: unknown): PassStyle;
  /** The interface name of a remotable. */
  export function getInterfaceOf(value: unknown): string | undefined;

  export interface PromiseKit<T> {
    readonly promise: Promise<T>;
    readonly resolve: (value: ERef<T>) => void;
    readonly reject: (reason?: unknown) => void;
  }
  export function makePromiseKit<T = unknown>(): PromiseKit<T>;

  export interface EventualHandler<T> {
    applyMethod?(target: T, method: PropertyKey, args: unknown[]): unknown;
    applyFunction?(target: T, args: unknown[]): unknown;
  }
  export interface HandledPromiseConstructor {
    new <T>(
      executor: (resolve: (value: ERef<T>) => void, reject: (reason?: unknown) => void, resolveWithPresence: (handler?: EventualHandler<object>) => object) => void,
      handler?: EventualHandler<Promise<T>>,
    ): Promise<T>;
    readonly prototype: Promise<unknown>;
    resolve<T>(value: ERef<T>): Promise<T>;
    reject(reason?: unknown): Promise<never>;
    applyMethod(target: unknown, method: PropertyKey, args: readonly unknown[]): Promise<unknown>;
    applyMethodSendOnly(target: unknown, method: PropertyKey, args: readonly unknown[]): void;
    applyFunction(target: unknown, args: readonly unknown[]): Promise<unknown>;
    applyFunctionSendOnly(target: unknown, args: readonly unknown[]): void;
    get(target: unknown, name: PropertyKey): Promise<unknown>;
    getSendOnly(target: unknown, name: PropertyKey): void;
  }
  export const HandledPromise: HandledPromiseConstructor;

  // ---- Errors.

  /** Text that stays as it is in the message of an error. */
  export interface Details {
    toString(): string;
  }
  export function q(value: unknown): Details;
  export function b(value: unknown): Details;
  export function X(strings: TemplateStringsArray, ...values: unknown[]): Details;
  export function Fail(strings: TemplateStringsArray, ...values: unknown[]): never;
  export function makeError(details?: string | Details, Constructor?: ErrorConstructor): Error;
  export interface Assert {
    (condition: unknown, details?: string | Details, Constructor?: ErrorConstructor): asserts condition;
    typeof(value: unknown, type: 'string', details?: string | Details): asserts value is string;
    typeof(value: unknown, type: 'number', details?: string | Details): asserts value is number;
    typeof(value: unknown, type: 'bigint', details?: string | Details): asserts value is bigint;
    typeof(value: unknown, type: 'boolean', details?: string | Details): asserts value is boolean;
    typeof(value: unknown, type: 'function', details?: string | Details): asserts value is Function;
    typeof(value: unknown, type: string, details?: string | Details): void;
    string(value: unknown, details?: string | Details): asserts value is string;
    equal<T>(actual: unknown, expected: T, details?: string | Details, Constructor?: ErrorConstructor): asserts actual is T;
    fail(details?: string | Details, Constructor?: ErrorConstructor): never;
    Fail: typeof Fail;
    note(error: Error, details: Details): void;
    details: typeof X;
    quote: typeof q;
    bare: typeof b;
    error: typeof makeError;
    makeError: typeof makeError;
  }
  export const assert: Assert;

  // ---- Patterns and guards.

  /** Matches values that pass as `T`. A key is a pattern that matches its equals; records and arrays hold patterns. */
  export type Pattern<T = unknown> = Matcher<T> | T | { readonly [name: string]: Pattern } | readonly Pattern[];
  export interface Matcher<out T = unknown> {
    readonly [Symbol.toStringTag]: `match:${string}`;
    readonly payload: unknown;
    /** For the compiler only. */
    readonly __matches?: T;
  }
  /** What a pattern matches, as far as types can tell. */
  export type Matched<P> = P extends Matcher<infer T> ? T : P extends readonly unknown[] ? { readonly [I in keyof P]: Matched<P[I]> } : P extends object ? { readonly [K in keyof P]: Matched<P[K]> } : P;
  export interface RawGuard {
    readonly [Symbol.toStringTag]: 'guard:rawGuard';
  }
  export interface AwaitArgGuard {
    readonly [Symbol.toStringTag]: 'guard:awaitArgGuard';
  }
  export interface MethodGuard {
    readonly [Symbol.toStringTag]: 'guard:methodGuard';
  }
  export interface InterfaceGuard<M = Record<PropertyKey, MethodGuard>> {
    readonly [Symbol.toStringTag]: 'guard:interfaceGuard';
    readonly payload: { readonly interfaceName: string; readonly methodGuards: M };
  }
  export interface MethodGuardReturns {
    /** What it gives; nothing if not said. */
    returns(guard?: Pattern | RawGuard): MethodGuard;
  }
  export interface MethodGuardRest extends MethodGuardReturns {
    /** For the list of all further arguments. */
    rest(guard: Pattern | RawGuard): MethodGuardReturns;
  }
  export interface MethodGuardMaker extends MethodGuardRest {
    optional(...guards: (Pattern | RawGuard | AwaitArgGuard)[]): MethodGuardRest;
  }
  export interface Limits {
    readonly decimalDigitsLimit?: number;
    readonly stringLengthLimit?: number;
    readonly symbolNameLengthLimit?: number;
    readonly numPropertiesLimit?: number;
    readonly propertyNameLengthLimit?: number;
    readonly arrayLengthLimit?: number;
  }
  export const M: {
    any(): Matcher<any>;
    undefined(): Matcher<undefined>;
    null(): null;
    boolean(): Matcher<boolean>;
    number(): Matcher<number>;
    bigint(limits?: Limits): Matcher<bigint>;
    nat(limits?: Limits): Matcher<bigint>;
    string(limits?: Limits): Matcher<string>;
    symbol(limits?: Limits): Matcher<symbol>;
    remotable<T = any>(label?: string): Matcher<T>;
    promise<T = any>(): Matcher<Promise<T>>;
    error(): Matcher<Error>;
    eref<P>(pattern: P): Matcher<Matched<P> | Promise<any>>;
    scalar(): Matcher<any>;
    key(): Matcher<any>;
    pattern(): Matcher<Pattern>;
    kind(name: string): Matcher<any>;
    array(limits?: Limits): Matcher<any[]>;
    arrayOf<P>(pattern?: P, limits?: Limits): Matcher<Matched<P>[]>;
    record(limits?: Limits): Matcher<Record<string, any>>;
    recordOf<V>(name?: Pattern, value?: V, limits?: Limits): Matcher<Record<string, Matched<V>>>;
    splitArray(base: readonly Pattern[], optional?: readonly Pattern[], rest?: Pattern): Matcher<any[]>;
    splitRecord<B extends object, O extends object = {}>(base: B, optional?: O, rest?: Pattern): Matcher<Matched<B> & Partial<Matched<O>>>;
    or<P extends readonly unknown[]>(...patterns: P): Matcher<Matched<P[number]>>;
    and(...patterns: Pattern[]): Matcher<any>;
    not(pattern: Pattern): Matcher<any>;
    opt<P>(pattern: P): Matcher<Matched<P> | undefined>;
    eq<T>(key: T): T;
    neq(key: unknown): Matcher<any>;
    lt<T>(key: T): Matcher<T>;
    lte<T>(key: T): Matcher<T>;
    gte<T>(key: T): Matcher<T>;
    gt<T>(key: T): Matcher<T>;
    /** An argument that is waited for before the call; only in `callWhen`. */
    await(pattern: Pattern): AwaitArgGuard;
    /** An argument or result that is not looked at. */
    raw(): RawGuard;
    call(...guards: (Pattern | RawGuard)[]): MethodGuardMaker;
    callWhen(...guards: (Pattern | RawGuard | AwaitArgGuard)[]): MethodGuardMaker;
    interface<G extends Record<PropertyKey, MethodGuard>>(name: string, methodGuards: G, options?: { readonly defaultGuards?: 'passable' | 'raw'; readonly sloppy?: boolean }): InterfaceGuard<G>;
  };
  export function matches<P>(value: unknown, pattern: P): value is Matched<P>;
  export function mustMatch<P>(value: unknown, pattern: P, label?: string | number): asserts value is Matched<P>;

  // ---- Exos.

  export type Methods = Record<PropertyKey, any>;
  export interface ExoOptions<C> {
    /** Called with the context of each instance before it is given out. */
    readonly finish?: (context: C) => void;
    /** What every state must match. */
    readonly stateShape?: { readonly [name: string]: Pattern };
    readonly receiveInstanceTester?: (isInstance: (value: unknown, facet?: string) => boolean) => void;
  }
  export interface KitOptions<C> extends ExoOptions<C> {
    readonly receiveAmplifier?: (amplify: (facet: unknown) => C extends { facets: infer F } ? F : never) => void;
  }
  export type Facets<K> = { readonly [F in keyof K]: Remotable<K[F]> };
  export function makeExo<T extends Methods>(tag: string, guard: InterfaceGuard<any> | undefined, methods: T & ThisType<{ readonly self: Remotable<T>; readonly state: {} }>): Remotable<T>;
  export function defineExoClass<A extends any[], S extends object, T extends Methods>(
    tag: string,
    guard: InterfaceGuard<any> | undefined,
    init: (...args: A) => S,
    methods: T & ThisType<{ readonly self: Remotable<T>; readonly state: S }>,
    options?: ExoOptions<{ readonly self: Remotable<T>; readonly state: S }>,
  ): (...args: A) => Remotable<T>;
  export function defineExoClassKit<A extends any[], S extends object, K extends Record<string, Methods>>(
    tag: string,
    guards: { readonly [F in keyof K]: InterfaceGuard<any> } | undefined,
    init: (...args: A) => S,
    methods: K & { readonly [F in keyof K]: ThisType<{ readonly facets: Facets<K>; readonly state: S }> },
    options?: KitOptions<{ readonly facets: Facets<K>; readonly state: S }>,
  ): (...args: A) => Facets<K>;
  export function makeDefaultExo<T extends Methods>(name: string, methods: T & ThisType<{ readonly self: Remotable<T>; readonly state: {} }>, guard?: InterfaceGuard<any>): Remotable<T>;
  /** The guard of an exo that says nothing more than that arguments and results pass. */
  export function makeDefaultInterface(name: string): InterfaceGuard<{}>;
  export interface Described<S> {
    __getDescription__(): S;
    __getDescription__<N extends keyof S>(...names: N[]): Pick<S, N>;
  }
  export function makeDiscoverableExo<T extends Methods, S extends Record<keyof T, object>>(name: string, methods: T, schemas: S, guard?: InterfaceGuard<any>): Remotable<T & Described<S>>;

  // ---- What a vat is given.

  export interface VatLogger {
    log(...args: unknown[]): void;
    info(...args: unknown[]): void;
    debug(...args: unknown[]): void;
    warn(...args: unknown[]): void;
    error(...args: unknown[]): void;
    /** Another one, whose lines carry these tags as well: `logger.subLogger({ tags: ['wallet'] })`. */
    subLogger(options?: string | { tags?: readonly string[] }): VatLogger;
  }
  export interface VatPowers {
    /** Ends the vat after this delivery, whose effects stay. */
    exitVat(completion?: unknown): void;
    /** Ends the vat and undoes this delivery. */
    exitVatWithFailure(reason?: unknown): void;
    readonly logger: VatLogger;
    readonly VatData: VatDataPowers;
    readonly WeakMap: WeakMapConstructor;
    readonly WeakSet: WeakSetConstructor;
  }
  /** What survives restarts of the vat and of the kernel: from strings to durable values. */
  export type Baggage = MapStore<string, any>;
  /** What a vat's source exports. It runs once per incarnation. */
  export type BuildRootObject<P = any, R extends object = object> = (powers: VatPowers, parameters: P, baggage: Baggage) => R | Promise<R>;

  // ---- Data in the store.

  export interface WeakMapStore<K, V> {
    has(key: K): boolean;
    get(key: K): V;
    /** For a new key. */
    init(key: K, value: V): void;
    /** For a known key. */
    set(key: K, value: V): void;
    delete(key: K): void;
    addAll(entries: Iterable<readonly [K, V]>): void;
  }
  /** In the order of its keys; objects come in the order in which they were added. Iteration holds one entry at a time. */
  export interface MapStore<K, V> extends WeakMapStore<K, V> {
    keys(key?: Pattern, value?: Pattern): IterableIterator<K>;
    values(key?: Pattern, value?: Pattern): IterableIterator<V>;
    entries(key?: Pattern, value?: Pattern): IterableIterator<readonly [K, V]>;
    getSize(key?: Pattern, value?: Pattern): number;
    clear(key?: Pattern, value?: Pattern): void;
  }
  export interface WeakSetStore<K> {
    has(key: K): boolean;
    add(key: K): void;
    delete(key: K): void;
    addAll(keys: Iterable<K>): void;
  }
  export interface SetStore<K> extends WeakSetStore<K> {
    keys(key?: Pattern): IterableIterator<K>;
    values(key?: Pattern): IterableIterator<K>;
    entries(key?: Pattern): IterableIterator<readonly [K, K]>;
    getSize(key?: Pattern): number;
    clear(key?: Pattern): void;
  }
  export interface StoreOptions {
    /** Survives restarts; keys and values must be durable. */
    readonly durable?: boolean;
    readonly keyShape?: Pattern;
    readonly valueShape?: Pattern;
  }
  export interface KindHandle {
    readonly [Symbol.toStringTag]: 'Alleged: kind';
  }
  /** Methods as behind a kind's instance: without their context. */
  export type WithoutContext<B> = Remotable<{ [K in keyof B]: B[K] extends (context: any, ...args: infer A) => infer R ? (...args: A) => R : never }>;
  export type FacetsOf<K> = { readonly [F in keyof K]: WithoutContext<K[F]> };
  export interface KindOptions<C> extends KitOptions<C> {
    /** The context is `this` instead of the first argument. */
    readonly thisfulMethods?: boolean;
    readonly interfaceGuard?: InterfaceGuard<any>;
    readonly interfaceGuardKit?: { readonly [facet: string]: InterfaceGuard<any> };
  }
  export interface PromiseWatcher<A extends any[] = any[]> {
    onFulfilled?(value: any, ...args: A): void;
    onRejected?(reason: any, ...args: A): void;
  }
  export interface VatDataPowers {
    /** Names a durable kind; kept in the baggage so that every incarnation can define the kind again. */
    makeKindHandle(tag: string): KindHandle;
    defineKind<A extends any[], S extends object, B extends Methods>(tag: string, init: (...args: A) => S, behavior: B, options?: KindOptions<{ state: S; self: WithoutContext<B> }>): (...args: A) => WithoutContext<B>;
    defineKindMulti<A extends any[], S extends object, K extends Record<string, Methods>>(tag: string, init: (...args: A) => S, behavior: K, options?: KindOptions<{ state: S; facets: FacetsOf<K> }>): (...args: A) => FacetsOf<K>;
    defineDurableKind<A extends any[], S extends object, B extends Methods>(handle: KindHandle, init: (...args: A) => S, behavior: B, options?: KindOptions<{ state: S; self: WithoutContext<B> }>): (...args: A) => WithoutContext<B>;
    defineDurableKindMulti<A extends any[], S extends object, K extends Record<string, Methods>>(handle: KindHandle, init: (...args: A) => S, behavior: K, options?: KindOptions<{ state: S; facets: FacetsOf<K> }>): (...args: A) => FacetsOf<K>;
    canBeDurable(value: unknown): boolean;
    makeScalarBigMapStore<K = any, V = any>(label: string, options?: StoreOptions): MapStore<K, V>;
    makeScalarBigWeakMapStore<K = any, V = any>(label: string, options?: StoreOptions): WeakMapStore<K, V>;
    makeScalarBigSetStore<K = any>(label: string, options?: StoreOptions): SetStore<K>;
    makeScalarBigWeakSetStore<K = any>(label: string, options?: StoreOptions): WeakSetStore<K>;
    /** The one watcher of a kind, with what it does in this incarnation. */
    providePromiseWatcher<A extends any[]>(handle: KindHandle, onFulfilled?: (value: any, ...args: A) => void, onRejected?: (reason: any, ...args: A) => void): PromiseWatcher<A>;
    /** Has a durable watcher told of a settlement, in whatever incarnation it comes. */
    watchPromise<A extends any[]>(promise: Promise<unknown>, watcher: PromiseWatcher<A>, ...args: A): void;
  }
}

declare module '@endo/far' {
  export { E, Far, passStyleOf, getInterfaceOf } from 'capstan';
  export type { ERef } from 'capstan';
}
declare module '@endo/eventual-send' {
  export { E, HandledPromise } from 'capstan';
  export type { ERef } from 'capstan';
}
declare module '@endo/promise-kit' {
  export { makePromiseKit } from 'capstan';
  export type { PromiseKit } from 'capstan';
}
declare module '@endo/exo' {
  export { makeExo, defineExoClass, defineExoClassKit } from 'capstan';
}
declare module '@endo/patterns' {
  export { M, matches, mustMatch } from 'capstan';
  export type { Pattern, Matcher, InterfaceGuard, MethodGuard } from 'capstan';
}
declare module '@endo/errors' {
  export { assert, Fail, makeError, q, b, X } from 'capstan';
}
declare module '@metamask/kernel-utils/exo' {
  export { makeDefaultExo, makeDefaultInterface, makeDiscoverableExo } from 'capstan';
}
declare module '@metamask/kernel-utils/discoverable' {
  export { makeDiscoverableExo } from 'capstan';
}
declare module '@metamask/kernel-exo' {
  export { makeDefaultExo, makeDefaultInterface, makeDiscoverableExo } from 'capstan';
}

/** Freezes a value and everything it reaches. */
declare function harden<T>(value: T): T;
declare const assert: import('capstan').Assert;
declare const HandledPromise: import('capstan').HandledPromiseConstructor;
declare const VatData: import('capstan').VatDataPowers;

/**
 * What the vat's configuration lets it look at, in `platformConfig.fs`: files under one directory, no symbolic links.
 * Only what was asked for is there. Paths are absolute, or relative to the directory.
 */
declare const fs: {
  existsSync(path: string): boolean;
  promises: {
    readFile(path: string): Promise<Uint8Array>;
    readFile(path: string, encoding: 'utf8' | 'utf-8' | { encoding: 'utf8' | 'utf-8' }): Promise<string>;
    access(path: string): Promise<void>;
  };
};
