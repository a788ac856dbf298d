//! What is wrong is told with its place.

use crate::support::{Files, run};

fn wrong(files: &[(&str, &str)]) -> String {
    Files::new(files).bundle("vat.ts").unwrap_err().to_string()
}

#[test]
fn an_import_that_leads_nowhere_names_itself_and_its_importer() {
    for (import, why) in [
        ("./nowhere", "cannot import \"./nowhere\": there is no such file"),
        ("node:fs", "cannot import \"node:fs\": a vat has no modules of Node such as fs"),
        (
            "https://x.example/a.js",
            "cannot import \"https://x.example/a.js\": only files and packages can be imported",
        ),
        ("#a", "cannot import \"#a\": it is not among the package's \"imports\""),
        ("@only", "cannot import \"@only\": this is no name of a package"),
        ("p/private", "cannot import \"p/private\": the package at "),
        ("p/out", "cannot import \"p/out\": the package at "),
        ("fs", "cannot import \"fs\": a vat has no modules of Node such as fs"),
        ("missing", "cannot import \"missing\": no package \"missing\" in any node_modules from "),
    ] {
        let source = format!("import './good';\n  import x from '{import}'; x;\n");
        let package = r#"{"exports": {".": "./a.js", "./out": "../../good.ts"}}"#;
        let got = wrong(&[
            ("vat.ts", &source),
            ("good.ts", ""),
            ("package.json", "{\"imports\": {}}"),
            ("node_modules/p/package.json", package),
        ]);
        assert!(got.starts_with(&format!("vat.ts:2:17: {why}")), "{got}");
    }
    let got = wrong(&[("vat.ts", "import './lib/a';"), ("lib/a.ts", "\n\nexport * from '../gone';")]);
    assert_eq!(got, "lib/a.ts:3:15: cannot import \"../gone\": there is no such file");
}

#[test]
fn a_name_that_is_not_exported_is_told_where_it_is_wanted() {
    let a = "export const a = 1;";
    let got = wrong(&[
        ("vat.ts", "import { a } from './a'; import { b as c } from './a'; export const d = [a, c];"),
        ("a.ts", a),
    ]);
    assert_eq!(got, "vat.ts:1:35: \"./a\" does not export \"b\"");
    let got = wrong(&[("vat.ts", "import { Nope } from '@endo/far'; export const d = Nope;")]);
    assert_eq!(got, "vat.ts:1:10: \"@endo/far\" does not export \"Nope\"");
    let twice = [
        ("vat.ts", "import { a } from './both'; export const d = a;"),
        ("both.ts", "export * from './a'; export * from './b';"),
        ("a.ts", a),
        ("b.ts", a),
    ];
    assert_eq!(wrong(&twice), "vat.ts:1:10: \"./both\" exports from two places \"a\"");
    let got =
        wrong(&[("vat.ts", "import { a } from './a'; export const f = () => { a = 2; };"), ("a.ts", a)]);
    assert_eq!(got, "vat.ts:1:10: what is imported cannot be assigned to");
}

#[test]
fn a_file_that_does_not_parse_says_where() {
    assert!(
        wrong(&[("vat.ts", "import './a';"), ("a.ts", "const ok = 1;\nconst = 'ä';")])
            .starts_with("a.ts:2:7: ")
    );
    assert!(wrong(&[("vat.ts", "const a = 1;\n'é😀'; const a = 2;")]).starts_with("vat.ts:1:7: "));
    assert!(
        wrong(&[("vat.ts", "import './d.json';"), ("d.json", "{\n\"a\": }")]).starts_with("d.json:2:6: ")
    );
    assert!(wrong(&[("vat.ts", "/* é😀 */ const = 1;")]).starts_with("vat.ts:1:17: "));
}

#[test]
fn what_a_vat_cannot_do_is_told() {
    for (source, why) in [
        ("await 1;", "1:1: a source that imports others, or is TypeScript, cannot await at its top level"),
        (
            "export {};\nfor await (const a of []);",
            "2:1: a source that imports others, or is TypeScript, cannot await at its top level",
        ),
        ("export const u = import.meta.url;", "1:18: a vat has no import.meta"),
        ("@dec class A {}", "1:1: decorators are not supported"),
        ("import './a.png';", "a.png: not a source: expected .ts, .mts, .cts, .js, .mjs, .cjs or .json"),
        ("import './d';", "1:8: cannot import \"./d\": there is no such file"),
    ] {
        let got = wrong(&[("vat.ts", source), ("a.png", ""), ("d/x", "")]);
        assert!(got.ends_with(why), "{source}: {got}");
    }
    assert!(
        wrong(&[("vat.ts", "import './a.js';"), ("a.js", "export const a = 1; return;")])
            .starts_with("a.js:1:21: ")
    );
}

#[test]
fn deep_programs_are_refused_or_bundled_but_end_nobody() {
    // Nearly as deep as is parsed; the stack of the bundler holds it in any build.
    const DEEP: usize = 6_000;
    for (open, close) in [
        ("!", ""),
        ("[", "]"),
        ("(", ")"),
        ("{", "}"),
        ("a=>", ""),
        ("if(1)", ""),
        ("if(1){}else ", ""),
        ("class extends ", ""),
        ("let a: A<", ">"),
        ("1+", ""),
        ("`${", "}`"),
        ("a?b:", ""),
        ("a.b", ""),
        ("f(", ")"),
        ("function f(){", "}"),
        ("x = ", ""),
    ] {
        let source = format!("{}1{}", open.repeat(DEEP), close.repeat(DEEP));
        drop(Files::new(&[("vat.ts", &source)]).bundle("vat.ts"));
        let source = open.repeat(100_000);
        assert_eq!(wrong(&[("vat.ts", &source)]), "vat.ts: nested too deeply", "{open}");
    }
    let long = " ".repeat(capstan_bundle::SOURCE_BYTES_MAX as usize + 1);
    assert_eq!(wrong(&[("vat.ts", &long)]), "vat.ts: longer than 16777216 bytes");
}

#[test]
fn the_map_leads_back_to_the_sources() {
    let vat =
        "import { fail } from './lib/fail';\n\nexport const go = (n: number): void => {\n  fail(n);\n};\n";
    let fail =
        "interface Nothing {}\nexport function fail(\n  n: number,\n): never {\n  throw Error(`${n}`);\n}\n";
    let files = Files::new(&[("vat.ts", vat), ("lib/fail.ts", fail)]);
    let bundle = files.bundle("vat.ts").unwrap();
    let map: serde_json::Value = serde_json::from_str(&bundle.source_map).unwrap();
    assert_eq!(map["sources"], serde_json::json!(["lib/fail.ts", "vat.ts"]));
    let stack = run(&bundle, "(() => { try { exports.go(3); } catch (e) { return e.stack; } })()");
    let map = oxc_sourcemap::SourceMap::from_json_string(&bundle.source_map).unwrap();
    let table = map.generate_lookup_table();
    let places: Vec<String> = stack
        .lines()
        .filter_map(|line| {
            let (_, place) = line.trim_end_matches(')').rsplit_once("eval_script:")?;
            let (line, column) = place.split_once(':')?;
            // The program of the test puts two lines of its own before the bundle's second.
            let line = line.parse::<u32>().unwrap() - 2;
            let token = map.lookup_source_view_token(&table, line, column.parse::<u32>().unwrap() - 1)?;
            Some(format!("{}:{}", token.get_source()?, token.get_src_line() + 1))
        })
        .collect();
    assert_eq!(places[..2], ["lib/fail.ts:5", "vat.ts:4"], "{stack}\n{}", bundle.code);
}
