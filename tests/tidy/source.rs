//! Tells code, comments and text in a Rust file apart, so that a rule about code is not tripped by
//! a sentence about it.

use std::ops::Range;

/// One file in layers. Each has the lines and columns of the file; what is not its own is blank.
pub(crate) struct Layers {
    /// No comments, and strings without their content.
    pub(crate) code: String,
    /// Code and the content of strings.
    pub(crate) spoken: String,
    /// Comments.
    pub(crate) comments: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Code,
    Text,
    Comment,
}

/// Splits a file.
pub(crate) fn layers(source: &str) -> Layers {
    let chars: Vec<char> = source.chars().collect();
    let kinds = kinds(&chars);
    let keep = |wanted: &[Kind]| {
        let layer = chars.iter().zip(&kinds);
        layer.map(|(&c, kind)| if c == '\n' || wanted.contains(kind) { c } else { ' ' }).collect()
    };
    Layers {
        code: keep(&[Kind::Code]),
        spoken: keep(&[Kind::Code, Kind::Text]),
        comments: keep(&[Kind::Comment]),
    }
}

fn kinds(chars: &[char]) -> Vec<Kind> {
    let mut kinds = vec![Kind::Code; chars.len()];
    let mut at = 0;
    while at < chars.len() {
        let (kind, inner, end) = piece(chars, at);
        kinds[inner].fill(kind);
        at = end;
    }
    kinds
}

/// The piece that starts at `at`: its kind, the part of it that has this kind, and its end.
fn piece(chars: &[char], at: usize) -> (Kind, Range<usize>, usize) {
    let glued = at > 0 && is_word(chars[at - 1]);
    match (chars[at], chars.get(at + 1)) {
        ('/', Some('/')) => {
            let end = find(chars, at, |rest| rest[0] == '\n');
            (Kind::Comment, at..end, end)
        }
        ('/', Some('*')) => {
            let end = block_comment_end(chars, at);
            (Kind::Comment, at..end, end)
        }
        ('r', Some('"' | '#')) if !glued || chars[at - 1] == 'b' || chars[at - 1] == 'c' => {
            raw_text(chars, at)
        }
        ('"', _) => {
            let end = quoted_end(chars, at, '"');
            (Kind::Text, at + 1..(end - 1).max(at + 1), end)
        }
        // A quote is a character only if it is closed; otherwise it opens a lifetime.
        ('\'', Some('\\')) => {
            let end = quoted_end(chars, at, '\'');
            (Kind::Text, at + 1..(end - 1).max(at + 1), end)
        }
        ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => (Kind::Text, at + 1..at + 2, at + 3),
        _ => (Kind::Code, at..at + 1, at + 1),
    }
}

fn raw_text(chars: &[char], at: usize) -> (Kind, Range<usize>, usize) {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    let start = at + 1 + hashes;
    if chars.get(start) != Some(&'"') {
        // A raw identifier: r#type.
        return (Kind::Code, at..at + 1, at + 1);
    }
    let closes = |rest: &[char]| {
        rest[0] == '"' && rest[1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    let end = find(chars, start + 1, closes);
    (Kind::Text, start + 1..end, (end + 1 + hashes).min(chars.len()))
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) if depth == 1 => return at + 2,
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    chars.len()
}

/// One past the closing quote.
fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn find(chars: &[char], from: usize, stop: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|&at| stop(&chars[at..])).unwrap_or(chars.len())
}

/// Whether the character can be part of a name.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `needle` stands in `text` as a whole word or path, by line from 1.
pub(crate) fn lines_with(text: &str, needle: &str) -> Vec<usize> {
    let starts = needle.starts_with(is_word);
    let ends = needle.ends_with(is_word);
    let lines = text.lines().enumerate();
    lines.filter(|(_, line)| has(line, needle, starts, ends)).map(|(at, _)| at + 1).collect()
}

fn has(line: &str, needle: &str, starts: bool, ends: bool) -> bool {
    line.match_indices(needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + needle.len()..].chars().next();
        let goes_on_before = starts && before.is_some_and(is_word);
        let goes_on_after = ends && after.is_some_and(is_word);
        !goes_on_before && !goes_on_after
    })
}

/// `code` without its `#[cfg(test)]` items, and the names of the test modules that live in files of
/// their own.
pub(crate) fn without_tests(code: &str) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let mut rest = code.to_owned();
    let mut modules = Vec::new();
    while let Some(start) = rest.find(MARK) {
        let after = start + MARK.len();
        let opens = rest[after..].find(['{', ';']).map_or(rest.len(), |at| after + at);
        let end = if rest[opens..].starts_with('{') {
            brace_end(&rest, opens)
        } else {
            let item: Vec<&str> = rest[after..opens].split_whitespace().collect();
            if let [.., "mod", name] = item[..] {
                modules.push(name.to_owned());
            }
            (opens + 1).min(rest.len())
        };
        let blank: String =
            rest[start..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        rest.replace_range(start..end, &blank);
    }
    (rest, modules)
}

fn brace_end(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Every path a `use` brings in, written out: `use std::{fs, io::Read};` is `std::fs` and
/// `std::io::Read`. With the line its `use` starts on.
pub(crate) fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(is_word) {
            continue;
        }
        let tree = code[at + 4..].split(';').next().unwrap_or_default();
        let line = code[..at].matches('\n').count() + 1;
        let flat: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
        found.extend(written_out(&flat).into_iter().map(|path| (line, path)));
    }
    found
}

fn written_out(tree: &str) -> Vec<String> {
    // Prefixes of the groups that are open at this point.
    let mut prefixes = vec![String::new()];
    let mut paths = Vec::new();
    let mut word = String::new();
    for c in tree.chars() {
        let prefix = prefixes.last().cloned().unwrap_or_default();
        match c {
            '{' => prefixes.push(prefix + word.trim()),
            ',' | '}' if word.trim().is_empty() => {}
            ',' | '}' => paths.push(prefix + word.trim()),
            _ => {
                word.push(c);
                continue;
            }
        }
        if c == '}' {
            prefixes.pop();
        }
        word.clear();
    }
    if !word.trim().is_empty() {
        paths.push(word.trim().to_owned());
    }
    paths
}

#[test]
fn comments_strings_and_code_are_told_apart() {
    let source = r###"let a = "x // y"; // say "hi"
/* outer /* inner */ still */ let b = 'c'; let d: &'static str = r#"raw "quote""#;
let e = '\''; let f = b"bytes\""; g"###;
    let Layers { code, spoken, comments } = layers(source);
    assert!(!code.contains('x') && !code.contains("raw") && !code.contains("bytes"), "{code}");
    assert!(!code.contains("hi") && !code.contains("inner") && !code.contains("still"), "{code}");
    assert!(code.contains("&'static str") && code.ends_with("; g"), "{code}");
    assert!(spoken.contains("x // y") && spoken.contains("raw \"quote\""), "{spoken}");
    assert!(comments.contains("say \"hi\"") && comments.contains("still"), "{comments}");
    assert_eq!(code.chars().count(), source.chars().count());
}

#[test]
fn test_modules_are_taken_out() {
    let code =
        "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { } }\nfn c() {}\n#[cfg(test)] mod far;";
    let (rest, modules) = without_tests(code);
    assert!(rest.contains("fn a()") && rest.contains("fn c()") && !rest.contains("fn b()"));
    assert_eq!(rest.lines().count(), code.lines().count());
    assert_eq!(modules, ["far"]);
}

#[test]
fn grouped_imports_are_written_out() {
    let code = "use std::{fs, io::{self, Read}, sync::Arc};\nuse a::b as c;";
    let paths: Vec<String> = imports(code).into_iter().map(|(_, path)| path).collect();
    let expected = ["std::fs", "std::io::self", "std::io::Read", "std::sync::Arc", "a::b as c"];
    assert_eq!(paths, expected);
}

#[test]
fn words_are_whole() {
    assert_eq!(lines_with("unsafe_code\nunsafe {", "unsafe"), [2]);
    assert_eq!(lines_with("a.iter()\nmy_iter", "iter"), [1]);
}
