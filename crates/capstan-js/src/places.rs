//! Where in its sources a vat's program is: stacks of the engine with their places led back through the source map.

use serde_json::Value as Json;
use std::sync::{Arc, OnceLock};

/// One vat's way back to its sources; there is none until its program is loaded, and none if it has no map.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Arc<OnceLock<Mapped>>);

/// A program with a map, which is read when it is first asked.
#[derive(Debug)]
struct Mapped {
    /// What the engine calls the program.
    name: String,
    map: Json,
    segments: OnceLock<Segments>,
}

/// A source map as a table: for each line, where something of the sources begins.
#[derive(Debug, Default)]
struct Segments {
    sources: Vec<String>,
    lines: Vec<Vec<Segment>>,
}

/// From this column on: that place of that source. All from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    column: u32,
    source: u32,
    source_line: u32,
    source_column: u32,
}

impl Places {
    /// Notes the map of the program, once.
    pub(crate) fn learn(&self, name: &str, map: Json) {
        let mapped = Mapped { name: name.to_owned(), map, segments: OnceLock::new() };
        // A vat has one program.
        let _ = self.0.set(mapped);
    }

    /// Returns a stack in which places of the program are places of its sources.
    pub(crate) fn traced(&self, stack: &str) -> String {
        let Some(mapped) = self.0.get() else { return stack.to_owned() };
        let mut traced = String::with_capacity(stack.len());
        let mut rest = stack;
        let name = format!("{}:", mapped.name);
        while let Some(at) = rest.find(&name) {
            let (before, after) = rest.split_at(at);
            traced += before;
            let place = &after[name.len()..];
            let end = place.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(place.len());
            match mapped.source_of(&place[..end]) {
                Some(source) => traced += &source,
                None => traced += &after[..name.len() + end],
            }
            rest = &place[end..];
        }
        traced + rest
    }
}

impl Mapped {
    /// `file:line:column` for `line:column` of the program.
    fn source_of(&self, place: &str) -> Option<String> {
        let (line, column) = place.split_once(':')?;
        let line: usize = line.parse().ok()?;
        let column: u32 = column.parse().ok()?;
        let segments = self.segments.get_or_init(|| Segments::read(&self.map).unwrap_or_default());
        let line = segments.lines.get(line.checked_sub(1)?)?;
        // The engine counts columns from 1 and means, in some calls, the one before: what begins right behind is it.
        let after = line.partition_point(|segment| segment.column <= column);
        let found = line.get(after.checked_sub(1)?)?;
        let source = segments.sources.get(found.source as usize)?;
        Some(format!("{source}:{}:{}", found.source_line + 1, found.source_column + 1))
    }
}

impl Segments {
    /// Reads a source map of version 3; one that makes no sense is no map.
    fn read(map: &Json) -> Option<Segments> {
        let text = |source: &Json| source.as_str().map(str::to_owned);
        let sources = map.get("sources")?.as_array()?.iter().map(text).collect::<Option<_>>()?;
        let mut segments = Segments { sources, lines: Vec::new() };
        let (mut source, mut source_line, mut source_column) = (0, 0, 0);
        for line in map.get("mappings")?.as_str()?.split(';') {
            let mut list = Vec::new();
            let mut column = 0;
            for fields in line.split(',').filter(|fields| !fields.is_empty()) {
                let mut numbers = fields.bytes();
                step(&mut column, &mut numbers)?;
                if numbers.len() == 0 {
                    continue; // of no source
                }
                step(&mut source, &mut numbers)?;
                step(&mut source_line, &mut numbers)?;
                step(&mut source_column, &mut numbers)?;
                list.push(Segment { column, source, source_line, source_column });
            }
            segments.lines.push(list);
        }
        Some(segments)
    }
}

/// Adds the next number, in base 64 with variable length, to a field.
fn step(field: &mut u32, bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
    let (mut value, mut shift) = (0_i64, 0);
    loop {
        let digit = match bytes.next()? {
            byte @ b'A'..=b'Z' => byte - b'A',
            byte @ b'a'..=b'z' => byte - b'a' + 26,
            byte @ b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        value |= i64::from(digit & 31) << shift;
        shift += 5;
        if digit & 32 == 0 {
            break;
        }
        if shift > 30 {
            return None;
        }
    }
    let delta = if value & 1 == 0 { value >> 1 } else { -(value >> 1) };
    *field = u32::try_from(i64::from(*field) + delta).ok()?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn places(mappings: &str) -> Places {
        let places = Places::default();
        places.learn(
            "vat.bundle",
            json!({"version": 3, "sources": ["a.ts", "lib/b.ts"], "mappings": mappings}),
        );
        places
    }

    #[test]
    fn places_are_led_back_and_all_else_stays() {
        // Line 2: column 0 is a.ts 1:1, column 4 is lib/b.ts 3:9; line 3: column 2 is lib/b.ts 2:9.
        let places = places(";AAAA,ICEQ;EADA");
        let stack = "    at f (vat.bundle:2:3)\n    at g (vat.bundle:2:5)\n    at vat.bundle:3:90\n    at h (other.js:2:5)\n";
        let traced =
            "    at f (a.ts:1:1)\n    at g (lib/b.ts:3:9)\n    at lib/b.ts:2:9\n    at h (other.js:2:5)\n";
        assert_eq!(places.traced(stack), traced);
        for unknown in [
            "vat.bundle:1:1",
            "vat.bundle:3:1",
            "vat.bundle:9:1",
            "vat.bundle:x",
            "vat.bundle:0:0",
            "vat.bundle:",
            "é",
        ] {
            assert_eq!(places.traced(unknown), unknown);
        }
        assert_eq!(Places::default().traced(stack), stack);
    }

    #[test]
    fn a_map_without_sense_is_none() {
        for mappings in ["é", "AAA", "D", "gggggggA", "AAA=", "AAAD", "AZAA"] {
            assert_eq!(places(mappings).traced("vat.bundle:1:1"), "vat.bundle:1:1", "{mappings}");
        }
        let odd = Places::default();
        odd.learn("x", json!({"sources": [1], "mappings": 3}));
        assert_eq!(odd.traced("x:1:1"), "x:1:1");
    }
}
