//! The tree of a script: every simple command in it, in the order in which the shell would run them.
//!
//! The tree's nesting of lists and pipelines is not always bash's, so both are flattened to their commands with the
//! operators between them and put together again here.

use tree_sitter::{Node, Tree};

use super::walk::{Facts, Redirect, Simple, Walk};
use super::{PartRole, Reason, Word, program};

/// Nesting that is followed, scripts within scripts included: a level takes some kilobytes of stack, and threads have two megabytes.
const MAX_NESTING: usize = 40;
/// Lists and pipelines hang below each other, one level for each command; far more than can be understood.
const MAX_CHAIN: usize = 400;

/// Judges the commands of a parsed script.
pub(super) fn run(walk: &mut Walk<'_>, text: &str, depth: usize, role: PartRole, tree: &Tree) -> Facts {
    Script { walk, text, depth, role, chain: 0 }.block(tree.root_node())
}

/// How a command is joined to the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Join {
    Then,
    And,
    Or,
    Pipe,
}

/// A command with the redirections that stand outside of its node.
struct Item<'t> {
    join: Join,
    node: Node<'t>,
    redirects: Vec<Node<'t>>,
}

/// One script with its text.
struct Script<'w, 'a, 't> {
    walk: &'w mut Walk<'a>,
    text: &'t str,
    depth: usize,
    role: PartRole,
    chain: usize,
}

impl<'t> Script<'_, '_, 't> {
    fn slice(&self, node: Node<'_>) -> &'t str {
        self.text.get(node.byte_range()).unwrap_or_default()
    }

    /// Commands of a node that holds a list of statements.
    fn block(&mut self, node: Node<'t>) -> Facts {
        let mut items = Vec::new();
        self.flatten_children(node, Join::Then, &mut items);
        self.run(items)
    }

    fn flatten_children(&mut self, node: Node<'t>, first: Join, items: &mut Vec<Item<'t>>) {
        if self.chain >= MAX_CHAIN {
            self.walk.give_up(Reason::TooDeep);
            return;
        }
        self.chain += 1;
        let mut join = first;
        let mut cursor = node.walk();
        for child in node.children(&mut cursor) {
            if child.is_named() {
                self.flatten(child, join, items);
                join = Join::Then;
            } else {
                match child.kind() {
                    "&&" => join = Join::And,
                    "||" => join = Join::Or,
                    "|" | "|&" => join = Join::Pipe,
                    "&" => {
                        self.walk.out.note(Reason::Background, None);
                        join = Join::Then;
                    }
                    _ => join = Join::Then,
                }
            }
        }
        self.chain -= 1;
    }

    fn flatten(&mut self, node: Node<'t>, join: Join, items: &mut Vec<Item<'t>>) {
        match node.kind() {
            "list" | "pipeline" => self.flatten_children(node, join, items),
            "negated_command" => {
                // The sign alone changes nothing but the exit code.
                self.walk.out.note(Reason::NotPlain, None);
                self.flatten_children(node, join, items);
            }
            "redirected_statement" => self.flatten_redirected(node, join, items),
            "comment" | "heredoc_start" | "heredoc_body" | "heredoc_end" => {}
            _ => items.push(Item { join, node, redirects: Vec::new() }),
        }
    }

    fn flatten_redirected(&mut self, node: Node<'t>, join: Join, items: &mut Vec<Item<'t>>) {
        let start = items.len();
        let mut cursor = node.walk();
        let children: Vec<Node<'t>> = node.children(&mut cursor).collect();
        for child in children.iter().filter(|child| child.is_named() && !child.kind().ends_with("_redirect"))
        {
            self.flatten(*child, join, items);
        }
        for redirect in children.iter().filter(|child| child.kind().ends_with("_redirect")) {
            if items.len() == start {
                // A redirection without a command still makes or empties its file.
                items.push(Item { join, node: *redirect, redirects: Vec::new() });
            }
            if let Some(last) = items.last_mut() {
                last.redirects.push(*redirect);
            }
            if redirect.kind() == "heredoc_redirect" {
                self.flatten_heredoc(*redirect, items);
            }
        }
    }

    /// What stands on the line behind `<<EOF` hangs below the redirection.
    fn flatten_heredoc(&mut self, redirect: Node<'t>, items: &mut Vec<Item<'t>>) {
        let mut join = Join::Then;
        let mut cursor = redirect.walk();
        for child in redirect.children(&mut cursor) {
            match child.kind() {
                "&&" => join = Join::And,
                "||" => join = Join::Or,
                "|" | "|&" => join = Join::Pipe,
                "pipeline" => self.flatten_children(child, Join::Pipe, items),
                kind if kind.ends_with("_redirect") => {
                    if let Some(last) = items.last_mut() {
                        last.redirects.push(child);
                    }
                }
                "heredoc_start" | "heredoc_body" | "heredoc_end" | "file_descriptor" => {}
                _ if child.is_named() && join != Join::Then => self.flatten(child, join, items),
                _ => {}
            }
        }
    }

    fn run(&mut self, items: Vec<Item<'t>>) -> Facts {
        let mut last = Facts::default();
        let mut pipelines: Vec<Vec<Item<'t>>> = Vec::new();
        for item in items {
            match pipelines.last_mut() {
                Some(pipeline) if item.join == Join::Pipe => pipeline.push(item),
                _ => pipelines.push(vec![item]),
            }
        }
        let mut start = self.walk.dirs.clone();
        for pipeline in pipelines {
            let join = pipeline[0].join;
            match join {
                // What was before may have failed, and its `cd` with it.
                Join::Then => {
                    self.walk.join_dirs(start);
                    start = self.walk.dirs.clone();
                    last = self.pipeline(pipeline);
                }
                Join::Or => {
                    self.walk.join_dirs(start.clone());
                    let before = self.walk.dirs.clone();
                    last = self.pipeline(pipeline);
                    self.walk.join_dirs(before);
                }
                // It runs only if what was before succeeded.
                Join::And | Join::Pipe => last = self.pipeline(pipeline),
            }
        }
        self.walk.join_dirs(start);
        last
    }

    fn pipeline(&mut self, items: Vec<Item<'t>>) -> Facts {
        let count = items.len();
        let mut fed = Facts::default();
        for (index, item) in items.into_iter().enumerate() {
            let dirs = (count > 1).then(|| self.walk.dirs.clone());
            let stdin = if index == 0 { None } else { fed.prints.clone() };
            let text = self.slice(item.node).to_owned();
            let facts = self.statement(item, stdin);
            if let Some(dirs) = dirs {
                // Every command of a pipeline has a shell of its own.
                self.walk.dirs = dirs;
            }
            if index > 0 && facts.runs_stdin {
                if fed.is_network {
                    self.walk.out.note(Reason::PipeToShell, Some(&text));
                } else if fed.is_decoder {
                    self.walk.out.note(Reason::DecodesAndRuns, Some(&text));
                } else {
                    self.walk.out.note(Reason::RunsText, Some(&text));
                }
            }
            fed = Facts {
                is_network: fed.is_network || facts.is_network,
                is_decoder: fed.is_decoder || facts.is_decoder,
                runs_stdin: facts.runs_stdin,
                prints: facts.prints,
            };
        }
        fed
    }

    fn statement(&mut self, item: Item<'t>, stdin: Option<String>) -> Facts {
        self.walk.nesting += 1;
        if self.walk.nesting > MAX_NESTING {
            self.walk.give_up(Reason::TooDeep);
            self.walk.nesting -= 1;
            return Facts::default();
        }
        let facts = self.statement_within(item, stdin);
        self.walk.nesting -= 1;
        facts
    }

    fn statement_within(&mut self, item: Item<'t>, stdin: Option<String>) -> Facts {
        let node = item.node;
        match node.kind() {
            "command"
            | "declaration_command"
            | "unset_command"
            | "test_command"
            | "variable_assignment"
            | "variable_assignments" => {
                self.substitutions(node);
                let mut simple = self.read_simple(node);
                simple.stdin = stdin.or(simple.stdin);
                for redirect in &item.redirects {
                    self.read_redirect(*redirect, &mut simple);
                }
                self.walk.simple(simple, self.depth, self.role)
            }
            "file_redirect" | "herestring_redirect" | "heredoc_redirect" => {
                let mut simple = Simple { text: self.slice(node).to_owned(), ..Simple::default() };
                for redirect in &item.redirects {
                    self.read_redirect(*redirect, &mut simple);
                }
                self.walk.simple(simple, self.depth, self.role)
            }
            "function_definition" => {
                self.function(node);
                Facts::default()
            }
            "ERROR" => {
                self.walk.give_up(Reason::NotParsed);
                self.block(node)
            }
            _ => self.structure(item),
        }
    }

    /// Loops, conditions, groups: everything within them may run or not.
    fn structure(&mut self, item: Item<'t>) -> Facts {
        let node = item.node;
        self.walk.out.note(Reason::Structure, None);
        self.walk.out.is_understood = false;
        let before = self.walk.dirs.clone();
        if node.kind() == "for_statement"
            && let Some(variable) = node.child_by_field_name("variable")
        {
            self.walk.variables.remove(self.slice(variable));
        }
        let facts = self.inside(node);
        if !item.redirects.is_empty() {
            let mut simple = Simple { text: self.slice(node).to_owned(), ..Simple::default() };
            for redirect in &item.redirects {
                self.read_redirect(*redirect, &mut simple);
            }
            self.walk.redirects(&simple);
        }
        if node.kind() == "subshell" {
            self.walk.dirs = before;
        } else {
            self.walk.join_dirs(before);
        }
        facts
    }

    /// Runs all statements below a node that is no simple command, whatever it is.
    fn inside(&mut self, node: Node<'t>) -> Facts {
        let mut facts = Facts::default();
        let mut items = Vec::new();
        let mut cursor = node.walk();
        for child in node.named_children(&mut cursor) {
            if is_statement(child.kind()) {
                self.flatten(child, Join::Then, &mut items);
            } else {
                self.nested(child);
            }
        }
        let inner = self.run(items);
        facts.is_network |= inner.is_network;
        facts.is_decoder |= inner.is_decoder;
        facts.runs_stdin |= inner.runs_stdin;
        facts
    }

    fn nested(&mut self, node: Node<'t>) {
        self.walk.nesting += 1;
        if self.walk.nesting > MAX_NESTING {
            self.walk.give_up(Reason::TooDeep);
        } else {
            self.inside(node);
        }
        self.walk.nesting -= 1;
    }

    fn function(&mut self, node: Node<'t>) {
        self.walk.out.note(Reason::Structure, None);
        self.walk.out.is_understood = false;
        let name = node.child_by_field_name("name").map(|name| self.slice(name)).unwrap_or_default();
        if program::is_known(name) {
            self.walk.out.note(Reason::Redefines, Some(self.slice(node)));
        }
        self.walk.redefined.insert(name.to_owned());
        let Some(body) = node.child_by_field_name("body") else { return };
        let text = self.slice(body);
        let calls =
            text.split(|c: char| c.is_whitespace() || "{}();|&".contains(c)).filter(|word| *word == name);
        if calls.count() >= 2 && text.contains('|') || text.contains(&format!("{name}|{name}")) {
            self.walk.out.note(Reason::ForkBomb, Some(self.slice(node)));
        }
        self.inside(body);
    }

    /// Commands that stand within words.
    fn substitutions(&mut self, node: Node<'t>) {
        let mut cursor = node.walk();
        for child in node.named_children(&mut cursor) {
            if matches!(child.kind(), "command_substitution" | "process_substitution" | "subshell") {
                self.walk.out.is_understood = false;
                let role = std::mem::replace(&mut self.role, PartRole::Inner);
                let dirs = self.walk.dirs.clone();
                self.nested(child);
                self.walk.dirs = dirs;
                self.role = role;
            } else if child.child_count() > 0 {
                self.walk.nesting += 1;
                if self.walk.nesting > MAX_NESTING {
                    self.walk.give_up(Reason::TooDeep);
                } else {
                    self.substitutions(child);
                }
                self.walk.nesting -= 1;
            }
        }
    }

    fn read_simple(&mut self, node: Node<'t>) -> Simple {
        let mut simple = Simple { text: self.slice(node).to_owned(), ..Simple::default() };
        if node.kind() == "variable_assignment" {
            self.read_assignment(node, &mut simple);
            return simple;
        }
        let is_command = matches!(node.kind(), "command" | "variable_assignments");
        let mut cursor = node.walk();
        for child in node.children(&mut cursor) {
            match child.kind() {
                "variable_assignment" if is_command => self.read_assignment(child, &mut simple),
                kind if kind.ends_with("_redirect") => self.read_redirect(child, &mut simple),
                "comment" => {}
                // The tree gives each part of `[[ … ]]` nodes of its own; here it is one word.
                "[[" | "]]" | "[" | "]" if !is_command => simple.words.push(Word::literal(child.kind())),
                _ if node.kind() == "test_command"
                    || is_command
                    || child.is_named()
                    || child.start_byte() == node.start_byte() =>
                {
                    let word = self.walk.word(self.slice(child));
                    simple.words.push(word);
                }
                _ => {}
            }
        }
        simple
    }

    fn read_assignment(&mut self, node: Node<'t>, simple: &mut Simple) {
        let text = self.slice(node);
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let word = self.walk.word(value);
        simple.assignments.push((name.trim_end_matches('+').to_owned(), word));
    }

    fn read_redirect(&mut self, node: Node<'t>, simple: &mut Simple) {
        self.substitutions(node);
        match node.kind() {
            "herestring_redirect" => {
                let mut cursor = node.walk();
                let word =
                    node.named_children(&mut cursor).last().map(|word| self.walk.word(self.slice(word)));
                simple.stdin = word.map(|word| word.guess);
            }
            "heredoc_redirect" => {
                let mut cursor = node.walk();
                let body = node.named_children(&mut cursor).find(|child| child.kind() == "heredoc_body");
                simple.stdin = body.map(|body| self.slice(body).to_owned());
                let arguments: Vec<Node<'t>> = {
                    let mut cursor = node.walk();
                    node.children_by_field_name("argument", &mut cursor).collect()
                };
                for argument in arguments {
                    simple.words.push(self.walk.word(self.slice(argument)));
                }
            }
            _ => self.read_file_redirect(node, simple),
        }
    }

    fn read_file_redirect(&mut self, node: Node<'t>, simple: &mut Simple) {
        let mut operator = "";
        let mut targets = Vec::new();
        let mut cursor = node.walk();
        for child in node.children(&mut cursor) {
            if child.kind() == "file_descriptor" {
            } else if child.is_named() {
                targets.push(child);
            } else if operator.is_empty() {
                operator = child.kind();
            }
        }
        let mut targets = targets.into_iter();
        let target = targets.next().map(|target| self.walk.word(self.slice(target)));
        // The tree takes the words behind the file for further files.
        for word in targets {
            simple.words.push(self.walk.word(self.slice(word)));
        }
        let is_descriptor =
            |word: &Word| word.guess == "-" || word.guess.trim_end_matches('-').parse::<u32>().is_ok();
        match operator {
            ">&" | "<&" | ">&-" | "<&-" if target.as_ref().is_none_or(is_descriptor) => {}
            "<" | "<&" => simple.redirects.push(Redirect { writes: false, target }),
            _ => simple.redirects.push(Redirect { writes: true, target }),
        }
    }
}

fn is_statement(kind: &str) -> bool {
    matches!(
        kind,
        "command"
            | "declaration_command"
            | "unset_command"
            | "test_command"
            | "variable_assignment"
            | "variable_assignments"
            | "list"
            | "pipeline"
            | "redirected_statement"
            | "negated_command"
            | "function_definition"
            | "if_statement"
            | "while_statement"
            | "for_statement"
            | "c_style_for_statement"
            | "case_statement"
            | "compound_statement"
            | "subshell"
            | "ERROR"
    )
}
