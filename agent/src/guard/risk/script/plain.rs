//! A reader of the small language in which a command may be of low risk.
//!
//! One line of printable ASCII; words of letters, digits and `_./:@%+,=-`, or in quotes in which nothing is special; joined by
//! `|`, `&&`, `||`, `;`; redirected to and from `/dev/null` and between standard output and error only. Bash and zsh
//! read this language alike, whatever options are set.

/// The words of each part, or `None` if the text is not of the language.
pub(super) fn read(text: &str) -> Option<Vec<Vec<String>>> {
    if !text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return None;
    }
    let mut parts = vec![Vec::new()];
    let mut rest = text.trim_matches(' ');
    // One `;` may close the last part.
    rest = rest.strip_suffix(';').filter(|rest| !rest.ends_with(';')).unwrap_or(rest);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(' ') {
            rest = after;
        } else if let Some(after) = redirect(rest) {
            rest = after;
        } else if let Some(after) = operator(rest) {
            if parts.last().is_none_or(Vec::is_empty) {
                return None;
            }
            parts.push(Vec::new());
            rest = after;
        } else {
            let (word, after) = word(rest)?;
            let part = parts.last_mut()?;
            // No assignments, and no program whose name is written in quotes.
            if part.is_empty() && (word.contains('=') || !rest.starts_with(&word)) {
                return None;
            }
            part.push(word);
            rest = after;
        }
    }
    parts.iter().all(|words| !words.is_empty()).then_some(parts)
}

fn operator(rest: &str) -> Option<&str> {
    for operator in ["&&", "||", "|", ";"] {
        if let Some(after) = rest.strip_prefix(operator) {
            // `|&`, `;;`, `&&&` and the like are something else.
            return (!after.starts_with(['&', '|', ';'])).then_some(after);
        }
    }
    None
}

fn redirect(rest: &str) -> Option<&str> {
    for redirect in [
        "2>&1",
        "1>&2",
        ">&2",
        ">/dev/null",
        "1>/dev/null",
        "2>/dev/null",
        "> /dev/null",
        "1> /dev/null",
        "2> /dev/null",
        "</dev/null",
        "< /dev/null",
    ] {
        if let Some(after) = rest.strip_prefix(redirect) {
            return (after.is_empty() || after.starts_with([' ', '|', ';', '&'])).then_some(after);
        }
    }
    None
}

fn word(rest: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut at = 0;
    let bytes = rest.as_bytes();
    // `=ls` is a path in zsh.
    if bytes.first() == Some(&b'=') {
        return None;
    }
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {}
            b'_' | b'.' | b'/' | b':' | b'@' | b'%' | b'+' | b',' | b'=' | b'-' => {}
            b' ' | b'|' | b';' => break,
            b'&' if bytes.get(at + 1) == Some(&b'&') => break,
            quote @ (b'\'' | b'"') => {
                let inner = &rest[at + 1..];
                let length = inner.find(char::from(*quote))?;
                let inner = &inner[..length];
                if *quote == b'"' && inner.contains(['$', '`', '\\', '!']) {
                    return None;
                }
                value.push_str(inner);
                at += length + 2;
                continue;
            }
            _ => return None,
        }
        value.push(char::from(*byte));
        at += 1;
    }
    // Nothing was taken: an operator that is not of the language.
    (at > 0).then(|| (value, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn plain_commands_are_read() {
        for (text, words) in [
            ("ls -la src", "ls,-la,src"),
            ("cat a | grep 'x*y' && wc -l;", "cat,a/grep,x*y/wc,-l"),
            ("ls 2>/dev/null || echo \"no such thing\"", "ls/echo,no such thing"),
            ("grep -c a b 2>&1 | head -n 3", "grep,-c,a,b/head,-n,3"),
            ("ls > /dev/null 2>&1", "ls"),
            ("ls;pwd", "ls/pwd"),
            ("echo ''", "echo,"),
            ("echo a=b @x 50%", "echo,a=b,@x,50%"),
        ] {
            let parts: Vec<String> = read(text).unwrap().iter().map(|words| words.join(",")).collect();
            assert_eq!(parts.join("/"), words, "{text}");
        }
    }

    #[test]
    fn everything_else_is_not() {
        for text in [
            "",
            " ",
            ";",
            "ls |",
            "| ls",
            "ls && && ls",
            "ls ;; ls",
            "ls & ls",
            "ls &",
            "ls |& cat",
            "ls\ncat",
            "ls\tx",
            "é",
            "ls *",
            "ls ~",
            "ls a?",
            "ls [a]",
            "ls {a,b}",
            "ls $X",
            "ls `x`",
            "ls $(x)",
            "ls \\x",
            "ls !x",
            "ls \"$x\"",
            "ls \"a\\b\"",
            "ls \"!x\"",
            "=ls",
            "ls =x",
            "A=b ls",
            "'ls'",
            "l's' x",
            "ls > f",
            "ls >> f",
            "ls < f",
            "ls 2>&1x",
            "ls >/dev/nullx",
            "ls 3>&1",
            "(ls)",
            "{ ls; }",
            "ls #x",
            "ls ^x",
            "ls <(x)",
            "echo 'x",
            "ls >&1 x",
            "a=b",
            "ls;;",
            "ls &&",
            "ls ||| cat",
            "ls >/dev/null/../f",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
