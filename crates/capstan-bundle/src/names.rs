//! Names that do not meet.

use std::collections::{BTreeMap, BTreeSet};

/// Whose a name is, in all sources together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    One(usize),
    Several,
}

/// All names of all files, whatever they stand for, and those given so far.
#[derive(Debug, Default)]
pub(crate) struct Names {
    owners: BTreeMap<String, Owner>,
    given: BTreeSet<String>,
    counts: BTreeMap<String, usize>,
}

impl Names {
    /// Notes that a file declares or uses this name somewhere.
    pub(crate) fn note(&mut self, name: &str, module: usize) {
        match self.owners.get_mut(name) {
            None => drop(self.owners.insert(name.to_owned(), Owner::One(module))),
            Some(Owner::One(owner)) if *owner == module => {}
            Some(owner) => *owner = Owner::Several,
        }
    }

    /// Keeps a name from everybody.
    pub(crate) fn reserve(&mut self, name: &str) {
        self.owners.insert(name.to_owned(), Owner::Several);
    }

    /// Gives a file's top-level name for the shared scope: itself, if no other file has it.
    pub(crate) fn top_level(&mut self, name: &str, module: usize) -> String {
        let own = self.owners.get(name).is_none_or(|owner| *owner == Owner::One(module));
        if own && self.given.insert(name.to_owned()) { name.to_owned() } else { self.fresh(name) }
    }

    /// Gives a name that nobody has: this one if possible.
    pub(crate) fn new_name(&mut self, name: &str) -> String {
        let free = !self.owners.contains_key(name) && self.given.insert(name.to_owned());
        if free { name.to_owned() } else { self.fresh(name) }
    }

    fn fresh(&mut self, name: &str) -> String {
        let count = self.counts.entry(name.to_owned()).or_default();
        loop {
            *count += 1;
            let numbered = format!("{name}${count}");
            if !self.owners.contains_key(&numbered) && self.given.insert(numbered.clone()) {
                return numbered;
            }
        }
    }
}

/// A name made of a file's: `counter` for `lib/counter.ts`.
pub(crate) fn stem(shown: &str) -> String {
    let mut parts = shown.rsplit('/');
    let file = parts.next().unwrap_or_default();
    let stem = file.split('.').next().unwrap_or_default();
    let stem = if stem == "index" { parts.next().unwrap_or(stem) } else { stem };
    let mut name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_where_it_meets_no_other() {
        let mut names = Names::default();
        for (name, module) in [("a", 0), ("b", 0), ("b", 1), ("b$1", 1)] {
            names.note(name, module);
        }
        names.reserve("exports");
        assert_eq!(names.top_level("a", 0), "a");
        assert_eq!((names.top_level("b", 0), names.top_level("b", 1)), ("b$2".into(), "b$3".into()));
        assert_eq!((names.top_level("exports", 0), names.new_name("a")), ("exports$1".into(), "a$1".into()));
        assert_eq!((names.new_name("c"), names.new_name("c")), ("c".into(), "c$1".into()));
    }

    #[test]
    fn a_file_gives_a_name() {
        for (shown, name) in
            [("a.ts", "a"), ("x/lib/index.js", "lib"), ("../a-b.c.js", "a_b"), ("9.js", "_9"), ("", "_")]
        {
            assert_eq!(stem(shown), name);
        }
    }
}
