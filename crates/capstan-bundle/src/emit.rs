//! Writes the program and its source map.

use crate::Bundle;
use crate::graph::{Graph, Target};
use crate::link::{Plan, member};
use crate::module::{Form, Module, required};
use oxc_allocator::{Allocator, ArenaVec};
use oxc_ast::ast::{
    BindingIdentifier, BindingPattern, CallExpression, ExportDefaultDeclarationKind, Expression, Statement,
    VariableDeclarationKind, VariableDeclarator,
};
use oxc_ast::builder::AstBuilder;
use oxc_ast_visit::{VisitMut, walk_mut};
use oxc_codegen::{Codegen, CodegenOptions, CommentOptions};
use oxc_semantic::Scoping;
use oxc_sourcemap::{ConcatSourceMapBuilder, SourceMap};
use oxc_span::SPAN;
use oxc_str::Ident;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Makes a function of a CommonJS file: it runs once, at the first call.
const COMMON_JS: &str = "const __commonJS = body => { let module; return () => { \
    if (module === undefined) { module = { exports: {} }; body.call(module.exports, module.exports, module); } return module.exports; }; };\n";
/// What modules see of a CommonJS file: what it exports, as default too unless it says otherwise.
const TO_MODULE: &str = "const __toModule = exports => (exports && exports.__esModule ? exports : \
    Object.assign(Object.create(null), exports, { default: exports }));\n";

/// Puts the files together.
pub(crate) fn emit<'a>(allocator: &'a Allocator, graph: Graph<'a>, plan: Plan) -> Bundle {
    let Graph { modules, targets, served } = graph;
    let external: Vec<String> = served
        .iter()
        .enumerate()
        .filter(|(index, _)| plan.served.contains_key(index) || plan.served_namespaces.contains_key(index))
        .map(|(_, served)| served.name.clone())
        .collect();
    let entry_form = modules.first().map(|module| module.form);
    let mut out = Out::default();
    let imports = if external.is_empty() { "" } else { ", __vatImports__" };
    out.line(&format!("var __vatExports__ = (function (exports{imports}) {{"));
    out.line("\"use strict\";");
    served_names(&mut out, served, &plan);
    let required = plan
        .requires
        .keys()
        .any(|target| matches!(target, Target::File(index) if modules[*index].form == Form::CommonJs));
    if required {
        out.text(COMMON_JS);
    }
    if !plan.common_js.is_empty() {
        out.text(TO_MODULE);
    }
    for (name, members) in plan.namespaces.values() {
        let members = members.iter().map(|(name, text)| {
            format!("get {}() {{ return {text}; }}", serde_json::Value::from(name.as_str()))
        });
        let members: String = members.map(|member| format!(", {member}")).collect();
        out.line(&format!("const {name} = Object.freeze({{ __proto__: null{members} }});"));
    }
    for (target, name) in &plan.requires {
        let whole = match target {
            Target::File(index) => plan.namespaces.get(index).map(|(name, _)| name),
            Target::Served(index) => plan.served_namespaces.get(index),
            Target::Nothing => None,
        };
        if let Some(whole) = whole {
            out.line(&format!("const {name} = () => {whole};"));
        }
    }
    let mut waiting: Vec<Option<Module<'a>>> = modules.into_iter().map(Some).collect();
    // Functions of CommonJS files come before everything that may call them.
    for (target, name) in &plan.requires {
        let Target::File(index) = target else { continue };
        if let Some(module) = waiting[*index].take_if(|module| module.form == Form::CommonJs) {
            out.line(&format!("const {name} = __commonJS(function (exports, module) {{"));
            out.module(allocator, module, &targets[*index], &plan, *index);
            out.line("});");
        }
    }
    for &index in &plan.order {
        if let Some(name) = plan.common_js.get(&index)
            && let Some(require) = plan.requires.get(&Target::File(index))
        {
            out.line(&format!("const {name} = __toModule({require}());"));
        }
        if let Some(module) = waiting[index].take_if(|module| module.form == Form::Module) {
            out.module(allocator, module, &targets[index], &plan, index);
        }
    }
    for (name, text) in &plan.exports {
        out.line(&format!("exports{} = {text};", member(name)));
    }
    match plan.requires.get(&Target::File(0)) {
        Some(require) if entry_form == Some(Form::CommonJs) => out.line(&format!("return {require}();")),
        _ => out.line("return exports;"),
    }
    out.line(&format!("}})({{}}{imports});"));
    let exports = plan.exports.iter().map(|(name, _)| name.clone()).collect();
    Bundle { source_map: out.map(), code: out.code, exports, external }
}

fn served_names(out: &mut Out<'_>, served: &[crate::Served], plan: &Plan) {
    for (index, of) in served.iter().enumerate() {
        let source = format!("__vatImports__({})", serde_json::Value::from(of.name.as_str()));
        if let Some(names) = plan.served.get(&index) {
            let pairs = names.iter().map(
                |(name, ours)| {
                    if name == ours { name.clone() } else { format!("{name}: {ours}") }
                },
            );
            out.line(&format!("const {{ {} }} = {source};", pairs.collect::<Vec<_>>().join(", ")));
        }
        if let Some(name) = plan.served_namespaces.get(&index) {
            out.line(&format!("const {name} = {source};"));
        }
    }
}

/// The program as far as it is written.
#[derive(Default)]
struct Out<'a> {
    code: String,
    lines: u32,
    maps: Vec<(SourceMap<'a>, u32)>,
}

impl<'a> Out<'a> {
    fn text(&mut self, text: &str) {
        self.code += text;
        self.lines += u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX);
    }

    fn line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.code, "{line}");
        self.lines += u32::try_from(line.matches('\n').count() + 1).unwrap_or(u32::MAX);
    }

    /// Writes a file's statements.
    fn module(
        &mut self,
        allocator: &'a Allocator,
        module: Module<'a>,
        targets: &[Target],
        plan: &Plan,
        index: usize,
    ) {
        let Module { mut program, mut scoping, form, shown, links, .. } = module;
        let builder = AstBuilder::new(allocator);
        let required: Vec<(&str, &str)> = links
            .requests
            .iter()
            .zip(targets)
            .filter_map(|(request, target)| {
                Some((request.specifier.as_str(), plan.requires.get(target)?.as_str()))
            })
            .collect();
        let mut rewrite = Rewrite {
            builder: &builder,
            allocator,
            scoping: &scoping,
            common_js: form == Form::CommonJs,
            required: &required,
        };
        rewrite.visit_program(&mut program);
        if form == Form::Module {
            let default = plan.defaults.get(&index).map(String::as_str).unwrap_or("_default");
            let body = std::mem::replace(&mut program.body, ArenaVec::new_in(&builder));
            for statement in body {
                if let Some(statement) = plain(&builder, statement, allocator.alloc_str(default)) {
                    program.body.push(statement);
                }
            }
        }
        program.directives.clear();
        program.hashbang = None;
        for (symbol, name) in &plan.renamed[index] {
            scoping.set_symbol_name(*symbol, Ident::from(allocator.alloc_str(name)));
        }
        let options = CodegenOptions {
            comments: CommentOptions::disabled(),
            source_map_path: Some(PathBuf::from(shown)),
            ..CodegenOptions::default()
        };
        let written = Codegen::new().with_options(options).with_scoping(Some(scoping)).build(&program);
        if let Some(map) = written.map {
            self.maps.push((map.into_owned(), self.lines));
        }
        self.text(&written.code);
        if !self.code.ends_with('\n') {
            self.text("\n");
        }
    }

    fn map(&mut self) -> String {
        let mut map =
            ConcatSourceMapBuilder::from_owned_sourcemaps(std::mem::take(&mut self.maps)).into_sourcemap();
        map.set_source_contents(Vec::new());
        map.to_json_string()
    }
}

/// A statement of a module as one of a function: declarations lose their `export`, imports and lists go.
fn plain<'a>(builder: &AstBuilder<'a>, statement: Statement<'a>, default: &'a str) -> Option<Statement<'a>> {
    let name = || BindingIdentifier::new(SPAN, default, builder);
    match statement {
        Statement::ImportDeclaration(_)
        | Statement::ExportAllDeclaration(_)
        | Statement::ExportFromDeclaration(_)
        | Statement::ExportNamedDeclaration(_) => None,
        Statement::ExportDeclaration(export) => Some(Statement::from(export.unbox().declaration)),
        Statement::ExportDefaultDeclaration(export) => match export.unbox().declaration {
            ExportDefaultDeclarationKind::FunctionDeclaration(mut function) => {
                function.id.get_or_insert_with(name);
                Some(Statement::FunctionDeclaration(function))
            }
            ExportDefaultDeclarationKind::ClassDeclaration(mut class) => {
                class.id.get_or_insert_with(name);
                Some(Statement::ClassDeclaration(class))
            }
            ExportDefaultDeclarationKind::TSInterfaceDeclaration(_) => None,
            expression => {
                let id = BindingPattern::new_binding_identifier(SPAN, default, builder);
                let value = Some(expression.into_expression());
                let one = VariableDeclarator::new(SPAN, id, None, value, false, builder);
                let list = ArenaVec::from_array_in([one], builder);
                Some(Statement::new_variable_declaration(
                    SPAN,
                    VariableDeclarationKind::Const,
                    list,
                    false,
                    builder,
                ))
            }
        },
        statement => Some(statement),
    }
}

/// Calls of `require` become those of the functions that stand for them; `process.env.NODE_ENV`, by which packages
/// choose their variant, is `"production"`.
struct Rewrite<'r, 'a> {
    builder: &'r AstBuilder<'a>,
    allocator: &'a Allocator,
    scoping: &'r Scoping,
    common_js: bool,
    required: &'r [(&'r str, &'r str)],
}

impl<'a> VisitMut<'a> for Rewrite<'_, 'a> {
    fn visit_expression(&mut self, it: &mut Expression<'a>) {
        if self.is_node_env(it) {
            *it = Expression::new_string_literal(SPAN, "production", None, self.builder);
        }
        walk_mut::walk_expression(self, it);
    }

    fn visit_call_expression(&mut self, it: &mut CallExpression<'a>) {
        let source = if self.common_js { required(self.scoping, it) } else { None };
        let function = source.and_then(|source| {
            self.required
                .iter()
                .find(|(specifier, _)| *specifier == source.value.as_str())
                .map(|(_, name)| *name)
        });
        if let Some(function) = function {
            let name = Ident::from(self.allocator.alloc_str(function));
            it.callee = Expression::new_identifier(SPAN, name, self.builder);
            it.arguments.clear();
        }
        walk_mut::walk_call_expression(self, it);
    }
}

impl Rewrite<'_, '_> {
    fn is_node_env(&self, expression: &Expression<'_>) -> bool {
        let Expression::StaticMemberExpression(variable) = expression else { return false };
        let Expression::StaticMemberExpression(env) = &variable.object else { return false };
        let Expression::Identifier(process) = &env.object else { return false };
        let free = process
            .reference_id
            .get()
            .is_some_and(|reference| self.scoping.get_reference(reference).symbol_id().is_none());
        free && process.name == "process"
            && env.property.name == "env"
            && variable.property.name == "NODE_ENV"
    }
}
