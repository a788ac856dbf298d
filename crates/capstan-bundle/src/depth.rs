//! How deep a program may be nested, found without a parser: parsers recurse, and their stack has an end.

/// The deepest program that is parsed. What people and tools write stays far below.
pub(crate) const DEPTH_MAX: usize = 20_000;

/// One bracket that is open.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Words and signs since something last ended here: as many operators, at most, may be waiting for their end.
    chain: usize,
    /// Words since a block or statement surely ended that may put one statement into another: `if (…) if (…)`.
    heads: usize,
    /// A `<` was seen: what follows may be an argument of a type, so that a comma ends nothing.
    angle: bool,
}

/// Whether nothing in this text can be nested deeper than [`DEPTH_MAX`].
///
/// Strings and comments are taken for code, so no trick with quotes hides anything; all is counted high.
pub(crate) fn is_shallow(text: &str) -> bool {
    let mut levels = vec![Level::default()];
    let mut total = 0;
    let mut bytes = text.bytes().peekable();
    let mut last_is_sign = true;
    // A line or a block has ended, and perhaps with it a statement.
    let (mut line_ended, mut block_ended) = (false, false);
    while let Some(byte) = bytes.next() {
        if byte.is_ascii_whitespace() {
            line_ended |= byte == b'\n';
            continue;
        }
        let is_word = is_word(byte);
        let (mut is_else, mut is_head) = (false, false);
        if is_word {
            let mut word = vec![byte];
            while let Some(next) = bytes.next_if(|next| self::is_word(*next)) {
                if word.len() < 8 {
                    word.push(next);
                }
            }
            is_head = matches!(&word[..], b"if" | b"else" | b"for" | b"while" | b"do" | b"with");
            is_else = matches!(&word[..], b"else" | b"catch" | b"finally" | b"while");
        }
        let Some(level) = levels.last_mut() else { return true };
        let before = level.chain + level.heads;
        if is_word && !is_else && (block_ended || (line_ended && !last_is_sign)) {
            level.chain = 0;
            level.angle = false;
            if block_ended {
                level.heads = 0;
            }
        }
        match byte {
            b';' => *level = Level::default(),
            b',' if !level.angle => level.chain = 0,
            _ => {
                level.chain += 1;
                level.heads += usize::from(is_head);
                level.angle |= byte == b'<';
            }
        }
        total = total + level.chain + level.heads - before;
        match byte {
            b'(' | b'[' | b'{' => levels.push(Level::default()),
            b')' | b']' | b'}' if levels.len() > 1 => {
                let closed = levels.pop().unwrap_or_default();
                total -= closed.chain + closed.heads;
            }
            _ => {}
        }
        if total + levels.len() > DEPTH_MAX {
            return false;
        }
        block_ended = byte == b'}';
        line_ended = false;
        last_is_sign = !is_word && !matches!(byte, b')' | b']' | b'}' | b'\'' | b'"' | b'`');
    }
    true
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_deep_is_seen_and_what_is_long_is_not_taken_for_it() {
        for deep in [
            "!",
            "!\n",
            "[",
            "(",
            "{",
            "a=>",
            "if(1)",
            "if(1)\n",
            "if(1){}else ",
            "for(;;)",
            "A<",
            "A<B,",
            "1+",
            "`${",
            "a?b:",
            "new ",
            "a:",
            "x=",
            "-\n",
            "do ",
            "\"/*\";[",
            "() => {",
            "class extends ",
            "a.b",
            "a()",
            "a[0]",
            "function(){",
        ] {
            assert!(!is_shallow(&deep.repeat(DEPTH_MAX + 1)), "{deep}");
        }
        for long in [
            "a = b + c(d);",
            "f(x)\n",
            "const a = [1, 2]\n",
            "if (a) { b() }\n",
            "if (a) { b() } else { c() }",
            "x,",
            "[1],",
            "{ a: 1 },",
            "// a comment, of some words\n",
            "case 1: a(); break;",
            "'it''s',",
            "function f() { return 1 }\n",
            "a < b;",
            "import x from 'y'\n",
        ] {
            assert!(is_shallow(&long.repeat(DEPTH_MAX + 1)), "{long}");
        }
    }
}
