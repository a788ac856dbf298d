//! Files, a stand-in for what the runtime serves, and an engine.

use capstan_bundle::{Bundle, BundleError, Served, bundle};
use rquickjs::context::EvalOptions;
use rquickjs::{CatchResultExt, Context, Runtime};
use std::path::PathBuf;
use tempfile::TempDir;

pub(crate) struct Files(pub(crate) TempDir);

impl Files {
    pub(crate) fn new(files: &[(&str, &str)]) -> Files {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Files(directory)
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub(crate) fn bundle(&self, entry: &str) -> Result<Bundle, BundleError> {
        bundle(&self.path(entry), &served())
    }
}

pub(crate) fn served() -> Vec<Served> {
    let one = |name: &str, exports: &[&str]| Served {
        name: name.into(),
        exports: exports.iter().map(|name| (*name).into()).collect(),
    };
    vec![one("@endo/far", &["E", "Far"]), one("capstan", &["E", "Far", "M"])]
}

/// Runs a bundle and returns what `expression` says of its `exports`.
pub(crate) fn run(bundle: &Bundle, expression: &str) -> String {
    let program = format!(
        "const served = {{ '@endo/far': {{ E: 'E!', Far: name => `far ${{name}}` }}, capstan: {{ M: 'M!' }} }};
         const exports = (function (__vatImports__) {{ {}\nreturn __vatExports__; }})(name => served[name]);
         `${{{expression}}}`",
        bundle.code
    );
    let runtime = Runtime::new().unwrap();
    Context::full(&runtime).unwrap().with(|ctx| {
        let mut options = EvalOptions::default();
        options.strict = true;
        let value = ctx.eval_with_options::<String, _>(program, options).catch(&ctx);
        value.unwrap_or_else(|why| format!("{why}\n{}", bundle.code))
    })
}

/// Bundles and runs.
pub(crate) fn says(files: &[(&str, &str)], expression: &str) -> String {
    let files = Files::new(files);
    run(&files.bundle(files_entry(&files)).unwrap(), expression)
}

fn files_entry(files: &Files) -> &'static str {
    ["vat.ts", "vat.js", "vat.cjs", "vat.mjs"].into_iter().find(|name| files.path(name).exists()).unwrap()
}
