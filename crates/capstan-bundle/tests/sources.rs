//! Modules of our own: TypeScript and JavaScript.

use crate::support::{Files, run, says, served};
use capstan_bundle::needs_bundling;

#[test]
fn types_go_and_what_they_stood_for_stays() {
    let vat = "import { Far, type E } from '@endo/far';
        import type { Point } from './types';
        import { Unused } from './types.js';
        enum Colour { Red, Green = 'g' }
        namespace Shape { export const sides: number = 4; }
        abstract class Base<T> { constructor(protected readonly value: T, public extra = 1) {} abstract name(): string; }
        class Box extends Base<number> { #hidden: number = 2; declare nothing: string; name(): string { return `${this.value}${this.#hidden}${this.extra}`; } }
        const point = { x: 1, y: 2 } satisfies Point as Point;
        function over(a: string): string; function over(a: number): string; function over(a: any): string { return String(a!); }
        let wrong: Unused | undefined;
        export const buildRootObject = (): string => `${Far('root')} ${Colour.Red} ${Colour[0]} ${Colour.Green} ${Shape.sides} ${new Box(7).name()} ${point.y} ${over(3)}`;";
    let types = "export type Point = { x: number; y: number }; export interface Unused { a: 1 }";
    let files = [("vat.ts", vat), ("types.ts", types)];
    assert_eq!(says(&files, "exports.buildRootObject()"), "far root 0 Red g 4 721 2 3");
}

#[test]
fn names_of_modules_do_not_meet() {
    let vat = "import { value as first, bump, count } from './a.js'; import second, { value } from './b.js';
        import * as everything from './a.js'; import { Far as far } from '@endo/far'; import * as capstan from 'capstan';
        const Far = 'mine'; const value$1 = 'v1';
        export const inner = value => { const count$1 = 'local'; return [value, count, count$1, first]; };
        bump();
        export const all = { first, value, second: second(), count, shorthand: { first }, everything: Object.keys(everything).join(), live: everything.count, Far, far: far('x'), M: capstan.M, value$1 };";
    let a = "export const value = 'a'; const helper = () => 1; export let count = 0; export const bump = () => { count += helper(); }; export default class {}";
    let b = "const helper = () => 'b-helper'; export const value = 'b'; export default function () { return helper(); }";
    let files = Files::new(&[("vat.js", vat), ("a.js", a), ("b.js", b)]);
    let bundle = files.bundle("vat.js").unwrap();
    assert_eq!(
        run(&bundle, "JSON.stringify(exports.all)"),
        r#"{"first":"a","value":"b","second":"b-helper","count":1,"shorthand":{"first":"a"},"everything":"bump,count,default,value","live":1,"Far":"mine","far":"far x","M":"M!","value$1":"v1"}"#
    );
    assert_eq!(run(&bundle, "exports.inner('in')"), "in,1,local,a");
    assert_eq!(
        (bundle.exports, bundle.external),
        (vec!["all".into(), "inner".into()], vec!["@endo/far".to_owned(), "capstan".to_owned()])
    );
}

#[test]
fn exports_pass_through_modules_and_modules_may_go_in_circles() {
    let vat = "export * from './one.js'; export { deep as renamed, default } from './two.js'; export * as space from './two.js'; export { E } from '@endo/far';
        import { even } from './even.js'; export const is = even(10); const local = 1; export { local as 'odd name' };";
    let one = "export const a = 1; export * from './two.js';";
    let two = "export * from './one.js'; export const deep = 'deep'; export default 'def' + 'ault'; export class Thing {}";
    let even = "import { odd } from './odd.js'; export function even(n) { return n === 0 || odd(n - 1); }";
    let odd = "import { even } from './even.js'; export const odd = n => n !== 0 && even(n - 1);";
    let files = [("vat.mjs", vat), ("one.js", one), ("two.js", two), ("even.js", even), ("odd.js", odd)];
    assert_eq!(
        says(
            &files,
            "[Object.keys(exports), exports.a, exports.renamed, exports.default, exports.space.Thing.name, exports.is, exports['odd name'], exports.E].join(' ')"
        ),
        "E,Thing,a,deep,default,is,odd name,renamed,space 1 deep default Thing true 1 E!"
    );
}

#[test]
fn modules_run_once_and_in_order() {
    let vat = "import './b.js'; import './a.js'; import data from './data.json'; globalThis.order.push('vat', data.list[1]); export const order = globalThis.order;";
    let a = "import './c.js'; globalThis.order.push('a');";
    let b = "import './c.js'; globalThis.order.push('b');";
    let c = "globalThis.order = ['c'];";
    let files = [("vat.js", vat), ("a.js", a), ("b.js", b), ("c.js", c), ("data.json", "{\"list\": [1, 2]}")];
    assert_eq!(says(&files, "exports.order"), "c,b,a,vat,2");
}

#[test]
fn the_same_sources_give_the_same_bundle_wherever_they_lie() {
    let sources = [
        ("vat.ts", "import { a } from './lib/a'; export const b: number = a;"),
        ("lib/a/index.ts", "export const a = 1;"),
    ];
    let (here, there) = (Files::new(&sources), Files::new(&sources));
    let bundle = here.bundle("vat.ts").unwrap();
    assert_eq!(bundle, there.bundle("vat.ts").unwrap());
    assert!(!format!("{bundle:?}").contains(here.0.path().to_str().unwrap()), "{bundle:?}");
}

#[test]
fn a_source_that_needs_no_bundling_is_left_alone() {
    let files = Files::new(&[
        ("plain.js", "import { E } from '@endo/far'; await null; export const a = 1;"),
        ("typed.ts", "export const a = 1;"),
        ("more.js", "import './plain.js'; export const a = 1;"),
        ("broken.js", "export const = 1;"),
        ("old.js", "exports.a = 1;"),
    ]);
    let needs = |name: &str| needs_bundling(&files.path(name), &served()).unwrap();
    assert_eq!(
        ["plain.js", "typed.ts", "more.js", "broken.js", "old.js"].map(needs),
        [false, true, true, true, true]
    );
}
