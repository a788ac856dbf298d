//! One source file: parsed, freed of types, and looked through for what it imports, exports and must not contain.

use crate::resolve::Asker;
use crate::{BundleError, Served};
use oxc_allocator::Allocator;
use oxc_ast::ast::{
    Argument, ArrowFunctionExpression, AwaitExpression, BindingIdentifier, CallExpression, Class, Decorator,
    ExportDefaultDeclarationKind, Expression, ForOfStatement, Function, ImportDeclarationSpecifier,
    ImportMeta, Program, ReturnStatement, Statement, StringLiteral, TryStatement,
};
use oxc_ast_visit::{Visit, walk};
use oxc_diagnostics::{Diagnostics, OxcDiagnostic};
use oxc_parser::{ParseOptions, Parser};
use oxc_semantic::{Scoping, SemanticBuilder};
use oxc_span::{GetSpan, SourceType, Span};
use oxc_syntax::module_record::ImportImportName;
use oxc_syntax::scope::ScopeFlags;
use oxc_syntax::symbol::SymbolId;
use oxc_transformer::{TransformOptions, Transformer};
use std::collections::BTreeMap;
use std::path::Path;

/// What form a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// ECMAScript: its declarations join those of the others.
    Module,
    /// Node's older form, run as a function at its first `require`.
    CommonJs,
}

/// What another module is asked for, and where.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) specifier: String,
    pub(crate) asker: Asker,
    /// Whoever asks is prepared for there being nothing.
    pub(crate) optional: bool,
    pub(crate) span: Span,
}

/// What of another module is meant.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Name(String),
    Namespace,
}

/// What an exported name stands for.
#[derive(Clone, Debug)]
pub(crate) enum Export {
    /// A top-level binding, which may itself be an import.
    Local(SymbolId),
    /// The value of `export default`, which has no name of its own.
    Default,
    /// Something of another module.
    From { request: usize, wanted: Wanted, span: Span },
}

/// A file.
pub(crate) struct Module<'a> {
    /// The path that errors and source maps show.
    pub(crate) shown: String,
    pub(crate) text: &'a str,
    pub(crate) form: Form,
    pub(crate) typed: bool,
    pub(crate) program: Program<'a>,
    pub(crate) scoping: Scoping,
    pub(crate) links: Links,
}

impl Module<'_> {
    pub(crate) fn error(&self, span: Span, message: impl Into<String>) -> BundleError {
        error_at(&self.shown, self.text, span.start, message)
    }
}

pub(crate) fn error_at(shown: &str, text: &str, offset: u32, message: impl Into<String>) -> BundleError {
    let before = text.get(..offset as usize).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    let column = before[line_start..].chars().map(char::len_utf16).sum::<usize>() + 1;
    BundleError { file: shown.to_owned(), position: Some((line, column)), message: message.into() }
}

/// Parses a file. `by_package`: its package says that its `.js` files are modules.
pub(crate) fn parse<'a>(
    allocator: &'a Allocator,
    path: &Path,
    shown: &str,
    text: &str,
    by_package: bool,
) -> Result<Module<'a>, BundleError> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !crate::depth::is_shallow(text) {
        let message = "nested too deeply".to_owned();
        return Err(BundleError { file: shown.to_owned(), position: None, message });
    }
    let text: &'a str = if extension == "json" {
        check_json(shown, text)?;
        allocator.alloc_str(&format!("export default {text}\n"))
    } else {
        allocator.alloc_str(text)
    };
    let kind = match extension {
        "js" | "mjs" | "cjs" | "json" => SourceType::mjs(),
        "ts" | "mts" | "cts" => SourceType::ts(),
        _ => {
            let message = "not a source: expected .ts, .mts, .cts, .js, .mjs, .cjs or .json".to_owned();
            return Err(BundleError { file: shown.to_owned(), position: None, message });
        }
    };
    // Whether a file is CommonJS is known only when it is parsed, and such a file may return.
    let options = ParseOptions { allow_return_outside_function: true, ..ParseOptions::default() };
    let parsed = Parser::new(allocator, text, kind).with_options(options).parse();
    refuse(shown, text, &parsed.diagnostics)?;
    let has_syntax = parsed.module_record.has_module_syntax;
    let mut program = parsed.program;
    let mut scoping = scoped(shown, text, &program)?;
    let form = match extension {
        "cjs" | "cts" => Form::CommonJs,
        _ if has_syntax || by_package || matches!(extension, "mjs" | "mts" | "json") => Form::Module,
        _ if ["require", "module", "exports"].iter().any(|name| is_free(&scoping, name)) => Form::CommonJs,
        _ => Form::Module,
    };
    let typed = kind.is_typescript();
    if typed {
        let options = TransformOptions::default();
        let done = Transformer::new(allocator, path, &options).build_with_scoping(scoping, &mut program);
        refuse(shown, text, &done.diagnostics)?;
        scoping = scoped(shown, text, &program)?;
    }
    let links = survey(&program, &scoping, form);
    let links = links.map_err(|(span, why)| error_at(shown, text, span.start, why))?;
    Ok(Module { shown: shown.to_owned(), text, form, typed, program, scoping, links })
}

fn check_json(shown: &str, text: &str) -> Result<(), BundleError> {
    serde_json::from_str::<serde_json::Value>(text).map(drop).map_err(|why| BundleError {
        file: shown.to_owned(),
        position: Some((why.line(), why.column())),
        message: why.to_string(),
    })
}

fn scoped(shown: &str, text: &str, program: &Program<'_>) -> Result<Scoping, BundleError> {
    let built = SemanticBuilder::new_compiler().with_enum_eval(true).build(program);
    refuse(shown, text, &built.diagnostics)?;
    Ok(built.semantic.into_scoping())
}

/// Whether a name is used that the file does not declare.
pub(crate) fn is_free(scoping: &Scoping, name: &str) -> bool {
    scoping.root_unresolved_references().keys().any(|free| free.as_str() == name)
}

fn refuse(shown: &str, text: &str, diagnostics: &Diagnostics) -> Result<(), BundleError> {
    let Some(first) = diagnostics.errors().next() else { return Ok(()) };
    Err(told(shown, text, first))
}

fn told(shown: &str, text: &str, diagnostic: &OxcDiagnostic) -> BundleError {
    let message = match &diagnostic.help {
        Some(help) => format!("{} ({help})", diagnostic.message),
        None => diagnostic.message.to_string(),
    };
    match diagnostic.labels.first() {
        Some(label) => error_at(shown, text, label.span().start, message),
        None => BundleError { file: shown.to_owned(), position: None, message },
    }
}

/// What a file imports and exports.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// In order.
    pub(crate) requests: Vec<Request>,
    /// What local names stand for something of another module.
    pub(crate) imports: BTreeMap<SymbolId, (usize, Wanted, Span)>,
    pub(crate) exports: BTreeMap<String, Export>,
    /// `export * from …`
    pub(crate) stars: Vec<usize>,
}

/// A refusal and its place.
type Refused = (Span, String);

fn survey(program: &Program<'_>, scoping: &Scoping, form: Form) -> Result<Links, Refused> {
    let mut look = Look { scoping, form, functions: 0, tries: 0, required: Vec::new(), refused: None };
    look.visit_program(program);
    if let Some(refused) = look.refused {
        return Err(refused);
    }
    let mut links = Links { requests: look.required, ..Links::default() };
    program.body.iter().try_for_each(|statement| links.declare(statement, scoping))?;
    Ok(links)
}

impl Links {
    /// The names that are wanted of what one request leads to.
    pub(crate) fn names_wanted(&self, of: usize) -> impl Iterator<Item = &str> {
        let imported = self.imports.values().map(|(request, wanted, _)| (request, wanted));
        let passed_on = self.exports.values().filter_map(|export| match export {
            Export::From { request, wanted, .. } => Some((request, wanted)),
            Export::Local(_) | Export::Default => None,
        });
        imported.chain(passed_on).filter_map(move |(request, wanted)| match wanted {
            Wanted::Name(name) if *request == of => Some(name.as_str()),
            Wanted::Name(_) | Wanted::Namespace => None,
        })
    }

    fn request(&mut self, source: &StringLiteral<'_>) -> usize {
        let specifier = source.value.to_string();
        self.requests.push(Request { specifier, asker: Asker::Import, optional: false, span: source.span });
        self.requests.len() - 1
    }

    fn declare(&mut self, statement: &Statement<'_>, scoping: &Scoping) -> Result<(), Refused> {
        match statement {
            Statement::ImportDeclaration(import) => {
                let request = self.request(&import.source);
                for specifier in import.specifiers.iter().flatten() {
                    let (local, wanted) = match specifier {
                        ImportDeclarationSpecifier::ImportSpecifier(one) => {
                            (&one.local, Wanted::Name(one.imported.name().to_string()))
                        }
                        ImportDeclarationSpecifier::ImportDefaultSpecifier(one) => {
                            (&one.local, Wanted::Name("default".to_owned()))
                        }
                        ImportDeclarationSpecifier::ImportNamespaceSpecifier(one) => {
                            (&one.local, Wanted::Namespace)
                        }
                    };
                    if let Some(symbol) = local.symbol_id.get() {
                        self.imports.insert(symbol, (request, wanted, specifier.span()));
                    }
                }
            }
            Statement::ExportAllDeclaration(all) => {
                let request = self.request(&all.source);
                match &all.exported {
                    None => self.stars.push(request),
                    Some(name) => {
                        let from = Export::From { request, wanted: Wanted::Namespace, span: all.span };
                        self.export(name.name().as_str(), from, all.span)?;
                    }
                }
            }
            Statement::ExportFromDeclaration(from) => {
                let request = self.request(&from.source);
                for one in &from.specifiers {
                    let wanted = Wanted::Name(one.local.name().to_string());
                    let what = Export::From { request, wanted, span: one.span };
                    self.export(one.exported.name().as_str(), what, one.span)?;
                }
            }
            Statement::ExportNamedDeclaration(list) => {
                for one in &list.specifiers {
                    let local = one.local.name();
                    let symbol = scoping.get_root_binding(local.as_str().into());
                    let symbol = symbol.ok_or_else(|| (one.span, format!("{local:?} is not defined")))?;
                    self.export(one.exported.name().as_str(), Export::Local(symbol), one.span)?;
                }
            }
            Statement::ExportDeclaration(export) => {
                let mut names = Names(Vec::new());
                names.visit_declaration(&export.declaration);
                for (name, symbol) in names.0 {
                    self.export(&name, Export::Local(symbol), export.span)?;
                }
            }
            Statement::ExportDefaultDeclaration(default) => {
                let id = match &default.declaration {
                    ExportDefaultDeclarationKind::FunctionDeclaration(function) => function.id.as_ref(),
                    ExportDefaultDeclarationKind::ClassDeclaration(class) => class.id.as_ref(),
                    _ => None,
                };
                let symbol = id.and_then(|id| id.symbol_id.get());
                self.export("default", symbol.map_or(Export::Default, Export::Local), default.span)?;
            }
            Statement::TSExportAssignment(assignment) => {
                return Err((
                    assignment.span,
                    "`export =` is not supported: use `export default`".to_owned(),
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn export(&mut self, name: &str, export: Export, span: Span) -> Result<(), Refused> {
        match self.exports.insert(name.to_owned(), export) {
            None => Ok(()),
            Some(_) => Err((span, format!("{name:?} is exported twice"))),
        }
    }
}

/// The names that a declaration binds, without looking into functions.
struct Names(Vec<(String, SymbolId)>);

impl<'a> Visit<'a> for Names {
    fn visit_binding_identifier(&mut self, it: &BindingIdentifier<'a>) {
        self.0.extend(it.symbol_id.get().map(|symbol| (it.name.to_string(), symbol)));
    }
    fn visit_function(&mut self, it: &Function<'a>, _: ScopeFlags) {
        it.id.iter().for_each(|id| self.visit_binding_identifier(id));
    }
    fn visit_class(&mut self, it: &Class<'a>) {
        it.id.iter().for_each(|id| self.visit_binding_identifier(id));
    }
    fn visit_expression(&mut self, _: &Expression<'a>) {}
}

/// Looks for calls of `require`, and for what a vat's program cannot have.
struct Look<'s> {
    scoping: &'s Scoping,
    form: Form,
    /// How many functions we are in.
    functions: usize,
    /// How many blocks that catch.
    tries: usize,
    required: Vec<Request>,
    refused: Option<Refused>,
}

impl Look<'_> {
    fn refuse(&mut self, span: Span, why: &str) {
        self.refused.get_or_insert_with(|| (span, why.to_owned()));
    }

    fn awaits(&mut self, span: Span) {
        if self.functions == 0 {
            self.refuse(
                span,
                "a source that imports others, or is TypeScript, cannot await at its top level",
            );
        }
    }
}

impl<'a> Visit<'a> for Look<'_> {
    fn visit_function(&mut self, it: &Function<'a>, flags: ScopeFlags) {
        self.functions += 1;
        walk::walk_function(self, it, flags);
        self.functions -= 1;
    }
    fn visit_arrow_function_expression(&mut self, it: &ArrowFunctionExpression<'a>) {
        self.functions += 1;
        walk::walk_arrow_function_expression(self, it);
        self.functions -= 1;
    }
    fn visit_await_expression(&mut self, it: &AwaitExpression<'a>) {
        self.awaits(it.span);
        walk::walk_await_expression(self, it);
    }
    fn visit_for_of_statement(&mut self, it: &ForOfStatement<'a>) {
        if it.r#await {
            self.awaits(it.span);
        }
        walk::walk_for_of_statement(self, it);
    }
    fn visit_return_statement(&mut self, it: &ReturnStatement<'a>) {
        if self.functions == 0 && self.form == Form::Module {
            self.refuse(it.span, "a return must be within a function");
        }
        walk::walk_return_statement(self, it);
    }
    fn visit_try_statement(&mut self, it: &TryStatement<'a>) {
        let catches = usize::from(it.handler.is_some());
        self.tries += catches;
        self.visit_block_statement(&it.block);
        self.tries -= catches;
        it.handler.iter().for_each(|handler| self.visit_catch_clause(handler));
        it.finalizer.iter().for_each(|block| self.visit_block_statement(block));
    }
    fn visit_import_meta(&mut self, it: &ImportMeta) {
        self.refuse(it.span, "a vat has no import.meta");
    }
    fn visit_decorator(&mut self, it: &Decorator<'a>) {
        self.refuse(it.span, "decorators are not supported");
    }
    fn visit_call_expression(&mut self, it: &CallExpression<'a>) {
        if self.form == Form::CommonJs
            && let Some(source) = required(self.scoping, it)
        {
            let specifier = source.value.to_string();
            self.required.push(Request {
                specifier,
                asker: Asker::Require,
                optional: self.tries > 0,
                span: source.span,
            });
        }
        walk::walk_call_expression(self, it);
    }
}

/// The literal in `require("…")`, where that is not a name of the file's own.
pub(crate) fn required<'c, 'a>(
    scoping: &Scoping,
    call: &'c CallExpression<'a>,
) -> Option<&'c StringLiteral<'a>> {
    let Expression::Identifier(callee) = &call.callee else { return None };
    let [Argument::StringLiteral(source)] = &call.arguments[..] else { return None };
    let free = callee.reference_id.get().is_some_and(|id| scoping.get_reference(id).symbol_id().is_none());
    Some(&**source).filter(|_| free && callee.name == "require")
}

/// Whether a text is a module whose imports are all among those.
pub(crate) fn imports_only(allocator: &Allocator, text: &str, served: &[Served]) -> bool {
    if !crate::depth::is_shallow(text) {
        return false;
    }
    let parsed = Parser::new(allocator, text, SourceType::mjs()).parse();
    let record = &parsed.module_record;
    let sound = !parsed.diagnostics.has_errors() && record.has_module_syntax;
    let of = |name: &str| served.iter().find(|one| one.name == name);
    let known =
        |module: &str, name: &str| of(module).is_some_and(|one| one.exports.iter().any(|own| own == name));
    let imports = record.import_entries.iter().all(|entry| match &entry.import_name {
        ImportImportName::Name(name) => known(entry.module_request.name.as_str(), name.name.as_str()),
        ImportImportName::Default(_) | ImportImportName::NamespaceObject => true,
    });
    sound && imports && record.requested_modules.keys().all(|name| of(name.as_str()).is_some())
}
