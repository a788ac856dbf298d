//! What every imported name means, in which order the files run, and what all of it is called in the program.

use crate::BundleError;
use crate::graph::{Graph, Target};
use crate::module::{Export, Form, Wanted};
use crate::names::{Names, stem};
use oxc_span::Span;
use oxc_syntax::symbol::SymbolId;
use std::collections::{BTreeMap, BTreeSet};

/// Names that the program's frame and every file's code use.
const RESERVED: [&str; 10] = [
    "exports",
    "arguments",
    "eval",
    "undefined",
    "Object",
    "__vatExports__",
    "__vatImports__",
    "__commonJS",
    "__toModule",
    "__namespace",
];

/// What an exported or imported name comes down to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Meaning {
    /// A top-level binding of a module.
    Binding(usize, SymbolId),
    /// What a module exports as default, without a name of its own.
    Default(usize),
    /// All that a module exports.
    Namespace(usize),
    /// A property of what a CommonJS file exports.
    Property(usize, String),
    /// All of that.
    Exports(usize),
    /// What is served.
    Served(usize, String),
    ServedNamespace(usize),
}

enum Found {
    Nothing,
    One(Meaning),
    Ambiguous,
}

/// How a program is put together.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// In which order the files run. CommonJS files that are only required run when they are.
    pub(crate) order: Vec<usize>,
    /// Each module's own names, and what they become.
    pub(crate) renamed: Vec<Vec<(SymbolId, String)>>,
    /// What a module's nameless default is called.
    pub(crate) defaults: BTreeMap<usize, String>,
    /// Objects with all exports of a module: their names and, for each export, the text of its value.
    pub(crate) namespaces: BTreeMap<usize, (String, Vec<(String, String)>)>,
    /// The functions that stand for `require` of something.
    pub(crate) requires: BTreeMap<Target, String>,
    /// What the exports of a CommonJS file that modules import are called.
    pub(crate) common_js: BTreeMap<usize, String>,
    /// What is used of each served module: its names and ours.
    pub(crate) served: BTreeMap<usize, BTreeMap<String, String>>,
    /// What whole served modules are called.
    pub(crate) served_namespaces: BTreeMap<usize, String>,
    /// What the entry exports, and the text of its value.
    pub(crate) exports: Vec<(String, String)>,
}

/// Finds out how the files fit together.
pub(crate) fn link(graph: &Graph<'_>) -> Result<Plan, BundleError> {
    let mut linker =
        Linker { graph, names: names_of(graph), plan: Plan::default(), bindings: BTreeMap::new() };
    linker.order();
    linker.top_level();
    linker.imports()?;
    linker.requires();
    linker.entry()?;
    linker.namespaces();
    Ok(linker.plan)
}

/// All names of all files but those of their imports, which the program does not have.
fn names_of(graph: &Graph<'_>) -> Names {
    let mut names = Names::default();
    for (index, module) in graph.modules.iter().enumerate() {
        for symbol in module.scoping.symbol_ids() {
            if !module.links.imports.contains_key(&symbol) {
                names.note(module.scoping.symbol_name(symbol), index);
            }
        }
        let free = module.scoping.root_unresolved_references().keys();
        for name in free.map(|name| name.as_str()).collect::<BTreeSet<_>>() {
            names.note(name, index);
        }
    }
    RESERVED.iter().for_each(|name| names.reserve(name));
    names
}

struct Linker<'g, 'a> {
    graph: &'g Graph<'a>,
    names: Names,
    plan: Plan,
    /// What top-level bindings are called in the program.
    bindings: BTreeMap<(usize, SymbolId), String>,
}

impl Linker<'_, '_> {
    /// Dependencies first, in the order of the imports.
    fn order(&mut self) {
        let mut entered = BTreeSet::from([0]);
        // Each file with the number of its next request.
        let mut path = vec![(0, 0)];
        while let Some((module, next)) = path.last_mut() {
            let Some(target) = self.graph.targets[*module].get(*next) else {
                self.plan.order.push(*module);
                path.pop();
                continue;
            };
            *next += 1;
            if let Target::File(index) = target
                && entered.insert(*index)
            {
                path.push((*index, 0));
            }
        }
    }

    fn top_level(&mut self) {
        let graph = self.graph;
        self.plan.renamed = graph.modules.iter().map(|_| Vec::new()).collect();
        for &index in &self.plan.order {
            let module = &graph.modules[index];
            let name = stem(&module.shown);
            if module.form == Form::CommonJs {
                continue;
            }
            for symbol in module.scoping.iter_bindings_in(module.scoping.root_scope_id()) {
                if module.links.imports.contains_key(&symbol) {
                    continue;
                }
                let given = self.names.top_level(module.scoping.symbol_name(symbol), index);
                self.plan.renamed[index].push((symbol, given.clone()));
                self.bindings.insert((index, symbol), given);
            }
            if matches!(module.links.exports.get("default"), Some(Export::Default)) {
                self.plan.defaults.insert(index, self.names.new_name(&format!("{name}_default")));
            }
        }
    }

    fn imports(&mut self) -> Result<(), BundleError> {
        let graph = self.graph;
        for (index, module) in graph.modules.iter().enumerate() {
            for (symbol, (request, wanted, span)) in &module.links.imports {
                let references = module.scoping.get_resolved_references(*symbol);
                if references.into_iter().any(|reference| reference.is_write()) {
                    return Err(module.error(*span, "what is imported cannot be assigned to"));
                }
                let meaning = self.follow(index, *request, wanted, *span)?;
                let text = self.text(&meaning);
                self.plan.renamed[index].push((*symbol, text));
            }
            for export in module.links.exports.values() {
                if let Export::From { request, wanted, span } = export
                    && !module.typed
                {
                    self.follow(index, *request, wanted, *span)?;
                }
            }
        }
        Ok(())
    }

    fn requires(&mut self) {
        let graph = self.graph;
        let asked =
            graph.modules.iter().zip(&graph.targets).filter(|(module, _)| module.form == Form::CommonJs);
        for target in asked.flat_map(|(_, targets)| targets.clone()) {
            if target != Target::Nothing {
                self.require(target);
            }
        }
    }

    /// The function that stands for `require` of a target.
    fn require(&mut self, target: Target) -> String {
        if let Some(known) = self.plan.requires.get(&target) {
            return known.clone();
        }
        let of = match target {
            Target::File(index) => stem(&self.graph.modules[index].shown),
            Target::Served(index) => stem(&self.graph.served[index].name),
            Target::Nothing => String::new(),
        };
        let name = self.names.new_name(&format!("require_{of}"));
        self.plan.requires.insert(target, name.clone());
        match target {
            Target::File(index) if self.graph.modules[index].form == Form::Module => {
                self.text(&Meaning::Namespace(index));
            }
            Target::File(_) | Target::Nothing => {}
            Target::Served(index) => drop(self.text(&Meaning::ServedNamespace(index))),
        }
        name
    }

    fn entry(&mut self) -> Result<(), BundleError> {
        let entry = &self.graph.modules[0];
        if entry.form == Form::CommonJs {
            self.require(Target::File(0));
            return Ok(());
        }
        for name in self.exported(0) {
            match self.find(0, &name, &mut BTreeSet::new()) {
                Found::One(meaning) => {
                    let text = self.text(&meaning);
                    self.plan.exports.push((name, text));
                }
                // Types that are exported again, or what two files export: nobody could import it.
                Found::Nothing | Found::Ambiguous => {}
            }
        }
        Ok(())
    }

    /// Completes the objects of whole modules. A text may be the first to need another.
    fn namespaces(&mut self) {
        let mut done = BTreeSet::new();
        while let Some(index) = self.plan.namespaces.keys().copied().find(|index| !done.contains(index)) {
            done.insert(index);
            let mut members = Vec::new();
            for name in self.exported(index) {
                if let Found::One(meaning) = self.find(index, &name, &mut BTreeSet::new()) {
                    members.push((name, self.text(&meaning)));
                }
            }
            if let Some((_, list)) = self.plan.namespaces.get_mut(&index) {
                *list = members;
            }
        }
    }

    /// All names that a module exports, as far as they are known.
    fn exported(&self, module: usize) -> BTreeSet<String> {
        let (mut names, mut seen, mut todo) = (BTreeSet::new(), BTreeSet::from([module]), vec![module]);
        while let Some(index) = todo.pop() {
            let links = &self.graph.modules[index].links;
            let own = links.exports.keys().filter(|name| index == module || *name != "default");
            names.extend(own.cloned());
            for star in &links.stars {
                match self.graph.targets[index][*star] {
                    Target::File(next) if seen.insert(next) => todo.push(next),
                    Target::File(_) | Target::Nothing => {}
                    Target::Served(next) => names.extend(self.graph.served[next].exports.iter().cloned()),
                }
            }
        }
        names
    }

    /// What an import means; or why it means nothing.
    fn follow(
        &self,
        module: usize,
        request: usize,
        wanted: &Wanted,
        span: Span,
    ) -> Result<Meaning, BundleError> {
        let why = match self.look(module, request, wanted, &mut BTreeSet::new()) {
            Found::One(meaning) => return Ok(meaning),
            Found::Nothing => "does not export",
            Found::Ambiguous => "exports from two places",
        };
        let module = &self.graph.modules[module];
        let name = if let Wanted::Name(name) = wanted { name } else { "*" };
        let specifier = &module.links.requests[request].specifier;
        Err(module.error(span, format!("{specifier:?} {why} {name:?}")))
    }

    fn look(
        &self,
        module: usize,
        request: usize,
        wanted: &Wanted,
        seen: &mut BTreeSet<(usize, String)>,
    ) -> Found {
        let target = self.graph.targets[module][request];
        Found::One(match (target, wanted) {
            (Target::File(index), Wanted::Name(name)) => return self.find(index, name, seen),
            (Target::File(index), Wanted::Namespace) => match self.graph.modules[index].form {
                Form::Module => Meaning::Namespace(index),
                Form::CommonJs => Meaning::Exports(index),
            },
            (Target::Nothing, _) => return Found::Nothing,
            (Target::Served(index), Wanted::Namespace) => Meaning::ServedNamespace(index),
            (Target::Served(index), Wanted::Name(name)) => {
                if !self.graph.served[index].exports.contains(name) {
                    return Found::Nothing;
                }
                Meaning::Served(index, name.clone())
            }
        })
    }

    /// What a module exports by a name (ECMA-262, ResolveExport).
    fn find(&self, index: usize, name: &str, seen: &mut BTreeSet<(usize, String)>) -> Found {
        let module = &self.graph.modules[index];
        if module.form == Form::CommonJs {
            return Found::One(Meaning::Property(index, name.to_owned()));
        }
        if !seen.insert((index, name.to_owned())) {
            return Found::Nothing;
        }
        match module.links.exports.get(name) {
            Some(Export::Default) => return Found::One(Meaning::Default(index)),
            Some(Export::From { request, wanted, .. }) => return self.look(index, *request, wanted, seen),
            Some(Export::Local(symbol)) => {
                return match module.links.imports.get(symbol) {
                    Some((request, wanted, _)) => self.look(index, *request, wanted, seen),
                    None => Found::One(Meaning::Binding(index, *symbol)),
                };
            }
            None if name == "default" => return Found::Nothing,
            None => {}
        }
        let mut found: Option<Meaning> = None;
        for star in &module.links.stars {
            let next = match self.look(index, *star, &Wanted::Name(name.to_owned()), seen) {
                Found::One(next) => next,
                Found::Nothing => continue,
                Found::Ambiguous => return Found::Ambiguous,
            };
            match &found {
                // A CommonJS file may have any property, so a module that surely exports the name comes first.
                Some(Meaning::Property(..)) | None => found = Some(next),
                Some(first) if *first == next || matches!(next, Meaning::Property(..)) => {}
                Some(_) => return Found::Ambiguous,
            }
        }
        found.map_or(Found::Nothing, Found::One)
    }

    /// The text of an expression for it.
    fn text(&mut self, meaning: &Meaning) -> String {
        match meaning {
            Meaning::Binding(index, symbol) => {
                self.bindings.get(&(*index, *symbol)).cloned().unwrap_or_else(|| "undefined".to_owned())
            }
            Meaning::Default(index) => {
                self.plan.defaults.get(index).cloned().unwrap_or_else(|| "undefined".to_owned())
            }
            Meaning::Namespace(index) => {
                if let Some((known, _)) = self.plan.namespaces.get(index) {
                    return known.clone();
                }
                let name =
                    self.names.new_name(&format!("{}_module", stem(&self.graph.modules[*index].shown)));
                self.plan.namespaces.insert(*index, (name.clone(), Vec::new()));
                name
            }
            Meaning::Exports(index) => {
                if let Some(known) = self.plan.common_js.get(index) {
                    return known.clone();
                }
                let name =
                    self.names.new_name(&format!("{}_module", stem(&self.graph.modules[*index].shown)));
                self.plan.common_js.insert(*index, name.clone());
                self.require(Target::File(*index));
                name
            }
            Meaning::Property(index, name) => {
                let exports = self.text(&Meaning::Exports(*index));
                format!("{exports}{}", member(name))
            }
            Meaning::Served(index, name) => {
                let used = self.plan.served.entry(*index).or_default();
                used.entry(name.clone()).or_insert_with(|| self.names.new_name(name)).clone()
            }
            Meaning::ServedNamespace(index) => {
                let name = || self.names.new_name(&stem(&self.graph.served[*index].name));
                self.plan.served_namespaces.entry(*index).or_insert_with(name).clone()
            }
        }
    }
}

/// `.name`, or `["na-me"]`.
pub(crate) fn member(name: &str) -> String {
    if oxc_syntax::identifier::is_identifier_name(name) {
        format!(".{name}")
    } else {
        format!("[{}]", serde_json::Value::from(name))
    }
}
