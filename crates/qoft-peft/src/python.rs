//! Regular expressions as Python's `re` reads them, which PEFT uses, for another engine.
//!
//! The engine here (`fancy-regex`) has lookarounds and backreferences as Python has, but reads some
//! characters otherwise: nested brackets and `&&` in a set, `{` that begins no count, `\Z`, flags.
//! [`translate`] writes a pattern in the engine's dialect, and refuses what Python refuses. What is
//! left: names of characters (`\N{…}`) and the flags `a` and `L` are errors here, and lookbehinds of
//! several widths are errors in Python only.

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::Chars;

/// What a quantifier would repeat.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    Nothing,
    /// `^`, `\b` and the like, which Python does not repeat.
    Place,
    Item,
    Repeated,
}

struct Translator<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    last: Last,
    /// Open groups, the innermost last.
    open: Vec<Group>,
    /// Numbers of the groups that have names.
    names: HashMap<String, usize>,
    /// Groups that can be referred to so far.
    groups: usize,
}

/// An open group.
struct Group {
    /// Blanks count for nothing in it.
    verbose: bool,
    /// Its number, if it can be referred to.
    number: Option<usize>,
}

/// A pattern in the dialect of `fancy-regex`, as one group.
pub(crate) struct Translated {
    /// The pattern. None of its groups has a name, since the engine would not have numbers then.
    pub pattern: String,
    /// Numbers of the groups that have names in Python's.
    pub names: HashMap<String, usize>,
}

/// Python's pattern for the engine.
pub(crate) fn translate(pattern: &str) -> Result<Translated, String> {
    let mut rest = pattern;
    let (mut flags, mut verbose) = (String::new(), false);
    while let Some((given, after)) = rest.strip_prefix("(?").and_then(|r| r.split_once(')')) {
        if given.is_empty() || !given.chars().all(|c| "aiLmsux".contains(c)) {
            break;
        }
        flags.push_str(&engine_flags(given)?);
        verbose |= given.contains('x');
        rest = after;
    }
    let mut translator = Translator {
        rest: rest.chars().peekable(),
        out: format!("(?{flags}:"),
        last: Last::Nothing,
        open: vec![Group {
            verbose,
            number: None,
        }],
        names: HashMap::new(),
        groups: 0,
    };
    while let Some(next) = translator.rest.next() {
        translator.step(next)?;
    }
    if translator.open.len() > 1 {
        return Err("a parenthesis is not closed".into());
    }
    translator.out.push(')');
    Ok(Translated {
        pattern: translator.out,
        names: translator.names,
    })
}

/// The flags that are left to the engine: blanks of verbose patterns are taken out here.
fn engine_flags(given: &str) -> Result<String, String> {
    match given.chars().find(|flag| "aL".contains(*flag)) {
        Some(flag) => Err(format!("the flag `{flag}` is not supported")),
        None => Ok(given.chars().filter(|flag| "ims".contains(*flag)).collect()),
    }
}

impl Translator<'_> {
    fn step(&mut self, next: char) -> Result<(), String> {
        match next {
            '\\' => self.escape(),
            '[' => self.set(),
            '(' => self.open(),
            ')' => {
                self.open.pop();
                if self.open.is_empty() {
                    return Err("a parenthesis is closed that is not open".into());
                }
                self.push(")", Last::Item)
            }
            '|' => self.push("|", Last::Nothing),
            '^' | '$' => self.push(&next.to_string(), Last::Place),
            '*' | '+' | '?' => self.repeat(&next.to_string()),
            '{' => match self.count() {
                Some(count) => self.repeat(&count),
                None => self.push(r"\{", Last::Item),
            },
            '}' => self.push(r"\}", Last::Item),
            '#' if self.is_verbose() => {
                while self.rest.next().is_some_and(|c| c != '\n') {}
                Ok(())
            }
            blank if self.is_verbose() && blank.is_ascii_whitespace() => Ok(()),
            other => self.push(&other.to_string(), Last::Item),
        }
    }

    fn push(&mut self, text: &str, last: Last) -> Result<(), String> {
        self.out.push_str(text);
        self.last = last;
        Ok(())
    }

    fn is_verbose(&self) -> bool {
        self.open.last().is_some_and(|group| group.verbose)
    }

    /// A quantifier, with the mark of a lazy or possessive one.
    fn repeat(&mut self, quantifier: &str) -> Result<(), String> {
        match self.last {
            Last::Nothing | Last::Place => return Err("there is nothing to repeat".into()),
            Last::Repeated => return Err("something is repeated twice".into()),
            Last::Item => self.out.push_str(quantifier),
        }
        if let Some(mark) = self.rest.next_if(|c| matches!(c, '?' | '+')) {
            self.out.push(mark);
        }
        self.last = Last::Repeated;
        Ok(())
    }

    /// `{m}`, `{m,}`, `{,n}` or `{m,n}` behind the `{`; `None`, and nothing read, if it is none.
    fn count(&mut self) -> Option<String> {
        let mut ahead = self.rest.clone();
        let digits = |ahead: &mut Peekable<Chars>| {
            let mut found = String::new();
            while let Some(digit) = ahead.next_if(char::is_ascii_digit) {
                found.push(digit);
            }
            found
        };
        let low = digits(&mut ahead);
        let count = match ahead.next_if_eq(&',') {
            Some(_) => {
                let high = digits(&mut ahead);
                let low = if low.is_empty() { "0" } else { &low };
                format!("{{{low},{high}}}")
            }
            None if low.is_empty() => return None,
            None => format!("{{{low}}}"),
        };
        ahead.next_if_eq(&'}')?;
        self.rest = ahead;
        Some(count)
    }

    /// What begins with `(`.
    fn open(&mut self) -> Result<(), String> {
        let verbose = self.is_verbose();
        if self.rest.next_if_eq(&'?').is_none() {
            return self.capture();
        }
        let next = self.rest.next();
        let group = match next {
            Some(c @ (':' | '=' | '!' | '>')) => format!("(?{c}"),
            Some('<') => match self.rest.next() {
                Some(c @ ('=' | '!')) => format!("(?<{c}"),
                _ => return Err("expected `?<=` or `?<!`; groups are named `(?P<name>…)`".into()),
            },
            Some('P') if self.rest.next_if_eq(&'<').is_some() => {
                let name = self.until('>')?;
                check_name(&name)?;
                let number = self.groups + 1;
                if self.names.insert(name.clone(), number).is_some() {
                    return Err(format!("the group `{name}` is there twice"));
                }
                return self.capture();
            }
            Some('P') if self.rest.next_if_eq(&'=').is_some() => {
                let name = self.until(')')?;
                let number = self.named(&name)?;
                return self.back(number);
            }
            Some('#') => return self.until(')').map(drop),
            Some('(') => {
                let group = self.until(')')?;
                match group.chars().all(|c| c.is_ascii_digit()) {
                    true => format!("(?({group})"),
                    false => format!("(?({})", self.named(&group)?),
                }
            }
            Some(flag) if "aiLmsux-".contains(flag) => {
                let given = format!("{flag}{}", self.until(':')?);
                if !given.chars().all(|c| "aiLmsux-".contains(c)) {
                    return Err("flags for all of it stand at its beginning".into());
                }
                let (on, off) = given.split_once('-').unwrap_or((&given, ""));
                if let Some(both) = off.chars().find(|flag| on.contains(*flag)) {
                    return Err(format!("the flag `{both}` is switched on and off"));
                }
                self.open.push(Group {
                    verbose: (verbose || on.contains('x')) && !off.contains('x'),
                    number: None,
                });
                let (on, off) = (engine_flags(on)?, engine_flags(off)?);
                let off = if off.is_empty() {
                    off
                } else {
                    format!("-{off}")
                };
                return self.push(&format!("(?{on}{off}:"), Last::Nothing);
            }
            _ => return Err("an unknown kind of group".into()),
        };
        self.open.push(Group {
            verbose,
            number: None,
        });
        self.push(&group, Last::Nothing)
    }

    /// Opens a group that can be referred to.
    fn capture(&mut self) -> Result<(), String> {
        self.groups += 1;
        self.open.push(Group {
            verbose: self.is_verbose(),
            number: Some(self.groups),
        });
        self.push("(", Last::Nothing)
    }

    /// The number of a group by its name.
    fn named(&self, name: &str) -> Result<usize, String> {
        let number = self.names.get(name).copied();
        number.ok_or_else(|| format!("there is no group `{name}` before"))
    }

    /// What a group has matched.
    fn back(&mut self, number: usize) -> Result<(), String> {
        if number > self.groups {
            return Err(format!("there is no group {number} before"));
        }
        if self.open.iter().any(|group| group.number == Some(number)) {
            return Err(format!("group {number} is referred to within itself"));
        }
        self.push(&format!(r"(?:\{number})"), Last::Item)
    }

    /// What stands before the next `end`, which is read, too.
    fn until(&mut self, end: char) -> Result<String, String> {
        let mut found = String::new();
        loop {
            match self.rest.next() {
                Some(c) if c == end => return Ok(found),
                Some(c) => found.push(c),
                None => return Err(format!("`{end}` is missing")),
            }
        }
    }

    /// What begins with a backslash, outside of sets.
    fn escape(&mut self) -> Result<(), String> {
        match self.rest.peek().copied() {
            Some('A' | 'b' | 'B') => {
                let place = self.rest.next().map(|c| format!(r"\{c}"));
                self.push(&place.unwrap_or_default(), Last::Place)
            }
            Some('Z') => {
                self.rest.next();
                self.push(r"\z", Last::Place)
            }
            Some('1'..='9') => {
                let mut ahead = self.rest.clone();
                let octal: String = ahead.by_ref().take(3).collect();
                if octal.len() == 3 && octal.chars().all(|c| c.is_digit(8)) {
                    self.rest = ahead;
                    let code = u32::from_str_radix(&octal, 8).map_err(|e| e.to_string())?;
                    return self.push(&literal(code)?, Last::Item);
                }
                let mut group = String::new();
                while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
                    group.push(digit);
                    if group.len() == 2 {
                        break;
                    }
                }
                self.back(group.parse().map_err(|_| format!("no group {group}"))?)
            }
            _ => {
                let item = self.escaped_item()?;
                self.push(&item, Last::Item)
            }
        }
    }

    /// A character or a class of characters that is written with a backslash, in sets or outside.
    fn escaped_item(&mut self) -> Result<String, String> {
        let next = self.rest.next().ok_or("a backslash at the end")?;
        let mut number = |digits: usize, radix: u32| {
            let mut text = String::new();
            while text.len() < digits
                && let Some(digit) = self.rest.next_if(|c| c.is_digit(radix))
            {
                text.push(digit);
            }
            let full = text.len() == digits || radix == 8;
            let code = full.then(|| u32::from_str_radix(&text, radix).unwrap_or(0));
            code.ok_or_else(|| format!(r"`\{next}` needs {digits} digits"))
        };
        match next {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' | 'n' | 'r' | 't' => Ok(format!(r"\{next}")),
            'a' => literal(7),
            'f' => literal(12),
            'v' => literal(11),
            'x' => literal(number(2, 16)?),
            'u' => literal(number(4, 16)?),
            'U' => literal(number(8, 16)?),
            '0' => literal(number(2, 8)?),
            letter if letter.is_ascii_alphanumeric() => Err(format!(r"`\{letter}` means nothing")),
            other => literal(u32::from(other)),
        }
    }

    /// A set, behind its `[`.
    fn set(&mut self) -> Result<(), String> {
        let mut set = String::from("[");
        set.extend(self.rest.next_if_eq(&'^'));
        let mut first = true;
        loop {
            let next = self.rest.next().ok_or("a set is not closed")?;
            if next == ']' && !first {
                break;
            }
            first = false;
            set.push_str(&self.set_item(next)?);
            let mut ahead = self.rest.clone();
            if ahead.next() == Some('-') && ahead.peek().is_some_and(|&c| c != ']') {
                self.rest.next();
                let end = self.rest.next().ok_or("a set is not closed")?;
                set.push('-');
                set.push_str(&self.set_item(end)?);
            }
        }
        set.push(']');
        self.push(&set, Last::Item)
    }

    fn set_item(&mut self, next: char) -> Result<String, String> {
        match (next, self.rest.peek()) {
            ('\\', Some('b')) => {
                self.rest.next();
                literal(8)
            }
            ('\\', _) => self.escaped_item(),
            (plain, _) => literal(u32::from(plain)),
        }
    }
}

/// Fails unless Python takes the name for a group's.
fn check_name(name: &str) -> Result<(), String> {
    let first = name.chars().next().filter(|c| !c.is_numeric());
    match first.is_some() && name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        true => Ok(()),
        false => Err(format!("`{name}` is no name of a group")),
    }
}

/// A character that means itself.
fn literal(code: u32) -> Result<String, String> {
    match char::from_u32(code) {
        Some(c) if c.is_ascii_alphanumeric() => Ok(c.to_string()),
        Some(_) => Ok(format!(r"\x{{{code:x}}}")),
        None => Err(format!("{code:#x} is no character")),
    }
}
