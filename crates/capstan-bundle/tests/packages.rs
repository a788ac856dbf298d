//! Packages from `node_modules`, in both forms.

use crate::support::{Files, says};

#[test]
fn packages_are_found_as_node_finds_them() {
    let files = [
        ("src/deep/vat.ts", "export { default } from 'never';"),
        ("vat.ts", "import { a } from 'plain'; import { b } from '@scope/conditional'; import { c } from '@scope/conditional/sub/c'; import { d } from 'indexed'; import { e } from 'main/lib/e'; import { f } from '#inner'; import { g } from 'own/g'; import { h } from './dir';
            export const all = [a, b, c, d, e, f, g, h].join();"),
        ("package.json", r##"{"name": "own", "imports": {"#inner": "./inner.js"}, "exports": {"./g": "./lib/g.js"}}"##),
        ("inner.js", "export const f = 'f';"),
        ("lib/g.js", "export const g = 'g';"),
        ("dir/index.ts", "export const h: string = 'h';"),
        ("node_modules/plain/package.json", r#"{"module": "esm", "main": "./nowhere.js"}"#),
        ("node_modules/plain/esm.js", "export const a = 'a';"),
        ("node_modules/@scope/conditional/package.json", r#"{"exports": {".": [{"node": "./no.js", "import": {"types": "./b.d.ts", "default": "./b.mjs"}, "require": "./no.cjs"}], "./sub/*": "./in/*.js", "./sub/hidden/*": null}}"#),
        ("node_modules/@scope/conditional/b.mjs", "export const b = 'b';"),
        ("node_modules/@scope/conditional/in/c.js", "export const c = 'c';"),
        ("node_modules/indexed/index.js", "export const d = 'd';"),
        ("node_modules/main/package.json", "{}"),
        ("node_modules/main/lib/e.js", "export const e = 'e';"),
    ];
    assert_eq!(says(&files, "exports.all"), "a,b,c,d,e,f,g,h");
}

/// What packages have for pages serves vats better than what they have for Node.
#[test]
fn packages_are_taken_without_node() {
    let files = [
        (
            "vat.ts",
            "import { a } from 'main'; import { b } from 'exported'; import { c } from 'mapped'; export const all = [a, b, c].join();",
        ),
        (
            "node_modules/main/package.json",
            r#"{"main": "./node.js", "module": "./node.js", "browser": "./page.js"}"#,
        ),
        ("node_modules/main/node.js", "import 'tty';"),
        ("node_modules/main/page.js", "export const a = 'a';"),
        (
            "node_modules/exported/package.json",
            r#"{"exports": {"node": "./node.js", "browser": "./page.js", "default": "./node.js"}}"#,
        ),
        ("node_modules/exported/page.js", "export const b = 'b';"),
        (
            "node_modules/mapped/package.json",
            r#"{"main": "./index.js", "browser": {"./node.js": "./page.js", "stream": "exported", "fs": "./none.js", "net": false, "./tty.js": false}}"#,
        ),
        (
            "node_modules/mapped/index.js",
            "import { c } from './node.js'; import { b } from 'stream'; import fs from 'fs'; import net, { Socket } from 'net'; import * as tty from './tty.js'; const all = c + b + fs + typeof net + Socket + Object.keys(tty).length; export { all as c };",
        ),
        ("node_modules/mapped/tty.js", "import 'tty';"),
        ("node_modules/mapped/page.js", "export const c = 'c';"),
        ("node_modules/mapped/node.js", "import 'tty';"),
        ("node_modules/mapped/none.js", "export default 'none';"),
    ];
    assert_eq!(says(&files, "exports.all"), "a,b,cbnoneobjectundefined1");
}

#[test]
fn a_served_module_wins_over_a_package() {
    let files = [
        ("vat.ts", "import { E } from '@endo/far'; export const a = E;"),
        ("node_modules/@endo/far/index.js", "export const E = 'theirs';"),
    ];
    assert_eq!(says(&files, "exports.a"), "E!");
}

#[test]
fn a_package_has_what_the_served_module_of_its_name_lacks() {
    let far = ("node_modules/@endo/far/index.js", "export const E = 'theirs'; export const more = 'more';");
    let files = [
        (
            "vat.ts",
            "import { E, more } from '@endo/far'; import { E as ours } from './other'; export const a = [E, more, ours].join();",
        ),
        ("other.ts", "import { E } from '@endo/far'; export { E };"),
        far,
    ];
    assert_eq!(says(&files, "exports.a"), "theirs,more,E!");
    let passed_on = [("vat.ts", "export { more as a } from '@endo/far';"), far];
    assert_eq!(says(&passed_on, "exports.a"), "more");
}

#[test]
fn common_js_is_run_at_its_first_require() {
    let files = [
        ("vat.ts", "import old, { named, counter } from 'old'; import * as space from 'old'; import modern, { x } from 'modern'; import { lazy } from './uses.cjs'; import './uses.cjs';
            export const all: unknown[] = [typeof old, named, space.named, counter(), modern, x, lazy(), globalThis.ran.join('+')];"),
        ("uses.cjs", "const { named } = require('old'); exports.lazy = () => require('./late').value + named + require('./esm.mjs').default + require('@endo/far').E + process.env.NODE_ENV;"),
        ("late.js", "globalThis.ran.push('late'); module.exports = { value: 'late-' };"),
        ("esm.mjs", "export default 'esm';"),
        ("node_modules/old/package.json", r#"{"main": "lib"}"#),
        ("node_modules/old/lib/index.js", "'use strict'; globalThis.ran = ['old']; var n = 0; if (process.env.NODE_ENV !== 'production') throw Error('variant');
            module.exports = function main() {}; module.exports.named = 'named'; module.exports.counter = function () { n += 1; return n; }; if (n === 0) return;"),
        ("node_modules/modern/index.js", "Object.defineProperty(exports, '__esModule', { value: true }); exports.default = 'modern'; exports.x = this === exports;"),
    ];
    assert_eq!(
        says(&files, "exports.all.join(' ')"),
        "function named named 1 modern true late-namedesmE!production old+late"
    );
}

#[test]
fn a_require_that_may_fail_fails_when_it_runs() {
    let files = [
        ("vat.js", "import got from './try.cjs'; export const all = got;"),
        (
            "try.cjs",
            "let a, b; try { a = require('absent'); } catch { a = 'without'; } try { b = require('./there.cjs'); } catch { b = 'never'; } module.exports = a + b;",
        ),
        ("there.cjs", "module.exports = ' there';"),
    ];
    assert_eq!(says(&files, "exports.all"), "without there");
}

#[test]
fn common_js_may_go_in_circles_and_be_the_entry() {
    let files = [
        (
            "vat.cjs",
            "const a = require('./a.js'); module.exports = { buildRootObject: () => a.name + a.other() };",
        ),
        ("a.js", "exports.name = 'a'; const b = require('./b.js'); exports.other = () => b.name;"),
        ("b.js", "const a = require('./a.js'); exports.name = 'b of ' + a.name;"),
    ];
    assert_eq!(says(&files, "exports.buildRootObject()"), "ab of a");
}

#[test]
fn links_are_followed_so_that_one_file_is_one_module() {
    let files = Files::new(&[
        (
            "vat.ts",
            "import { n as a } from 'linked'; import { n as b } from './real/index.js'; export const same: boolean = a === b;",
        ),
        ("real/index.js", "export const n = {};"),
        ("node_modules/x/index.js", ""),
    ]);
    std::os::unix::fs::symlink(files.path("real"), files.path("node_modules/linked")).unwrap();
    assert_eq!(crate::support::run(&files.bundle("vat.ts").unwrap(), "exports.same"), "true");
}
