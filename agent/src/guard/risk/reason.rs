//! Every reason for a risk: its stable word, what it amounts to alone, and a sentence for people.

use super::Risk;

macro_rules! reasons {
    ($($(#[doc = $doc:expr])* $name:ident, $risk:ident, $word:literal, $text:literal;)*) => {
        /// A reason for a risk. Words are stable: rules, programs and translations refer to them.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum Reason {
            $(#[doc = $text] $name,)*
        }

        impl Reason {
            /// All of them, worst first within each theme.
            pub const ALL: &[Reason] = &[$(Self::$name,)*];

            /// The stable word.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What it amounts to alone.
            pub const fn risk(self) -> Risk {
                match self { $(Self::$name => Risk::$risk,)* }
            }

            /// A sentence for people, without a full stop, that goes on from "it …".
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    // Destroying work or history.
    DeletesTree, High, "deletes_tree", "deletes a whole directory that is no build output";
    DiscardsChanges, High, "discards_changes", "throws away changes that are not committed";
    ForcePush, High, "force_push", "pushes over what others may have pushed";
    DeletesRemote, High, "deletes_remote", "deletes something on a server";
    DeletesBranch, High, "deletes_branch", "deletes a branch, a tag or a stash with what only it holds";
    RewritesHistory, High, "rewrites_history", "rewrites history or removes what could bring it back";
    DestroysData, High, "destroys_data", "destroys data of a database, container, cluster or cloud";
    Deletes, Medium, "deletes", "deletes files";
    Overwrites, Medium, "writes_files", "writes files";
    ChangesRepository, Medium, "changes_repository", "changes the git repository";
    ReadsRepository, Medium, "reads_repository", "reads the git repository, whose settings may run programs";

    // Leaving the project or the machine.
    WritesOutside, High, "writes_outside", "writes outside the project";
    WritesUnknownPlace, Medium, "writes_unknown_place", "writes to a place that the shell computes";
    ReadsOutside, Medium, "reads_outside", "reads outside the project";
    RemoteShell, High, "remote_shell", "runs something on another machine";
    Uploads, High, "uploads", "sends data to another machine";
    Publishes, High, "publishes", "publishes something that cannot be taken back";
    RawNetwork, High, "raw_network", "opens a network connection of its own";
    Pushes, Medium, "pushes", "pushes commits to a server";
    Network, Medium, "network", "talks to the network";

    // Changing the system.
    Privilege, High, "privilege", "runs with another user's rights";
    System, High, "system_change", "changes the system outside the project";
    Disk, High, "disk", "works on disks or devices";
    InstallsOnSystem, High, "installs_on_system", "installs or removes software outside the project";
    Startup, High, "startup_file", "changes what runs by itself later";
    Permissions, High, "permissions", "opens files to everybody, or gives programs special rights";
    KillsAll, High, "kills_all", "ends processes that are not its own";
    Kills, Medium, "kills_process", "ends processes";
    ChangesMode, Medium, "changes_mode", "changes permissions or owners of files";
    Installs, Medium, "installs_packages", "installs or updates packages, which run scripts of their own";

    // Changing the guard, reaching for secrets.
    Guard, High, "changes_guard", "touches Claude Code's settings or ClaudeNest itself";
    GuardDecision, High, "decides_itself", "tries to answer its own approvals or change its own rules";
    NoGate, High, "starts_ungated", "starts Claude Code without its permission checks";
    Secrets, High, "reads_secrets", "reads keys, passwords or tokens";
    SendsSecrets, High, "sends_secrets", "reads secrets and talks to the network";
    SecretFile, Medium, "secret_file", "reads a file that often holds secrets";
    ShowsEnvironment, Medium, "shows_environment", "shows environment variables, which often hold secrets";

    // Running what cannot be seen, or hiding it.
    PipeToShell, High, "pipe_to_shell", "runs what it gets from the network";
    DecodesAndRuns, High, "decodes_and_runs", "decodes something and runs it";
    HiddenProgram, High, "hidden_program", "computes which program it runs";
    EvalComputed, High, "eval_computed", "runs text that the shell computes";
    HiddenCharacters, High, "hidden_characters", "holds characters that are invisible or change the order of text";
    HiddenEvaluation, High, "hidden_evaluation", "hides a command where only a name or a number belongs";
    OddSpelling, High, "odd_spelling", "spells the name of its program in a way that hides it";
    Redefines, High, "redefines_command", "gives a well-known command another meaning";
    ForkBomb, High, "fork_bomb", "defines a function that starts itself without end";
    HijackingEnvironment, High, "hijacking_environment", "sets a variable that makes programs run something else";
    GitRunsPrograms, High, "git_runs_programs", "makes git run programs from its settings or hooks";
    RunsText, Medium, "runs_text", "runs a command that stands in a text";
    RunsScript, Medium, "runs_script", "runs a script or a program of the project";
    RunsInner, Medium, "runs_inner", "runs another command for each thing that it finds";
    UnknownProgram, Medium, "unknown_program", "runs a program that is not known here";
    UnknownFlag, Medium, "unknown_flag", "uses flags that are not known to only read";
    KnownTool, Medium, "known_tool", "uses a known tool that can do more than read";
    Computed, Medium, "computed_words", "holds words that the shell computes";
    Structure, Medium, "control_structure", "holds loops, conditions or functions";
    NotPlain, Medium, "not_plain", "is written with more than plain words";
    SetsEnvironment, Medium, "sets_environment", "sets environment variables";
    Background, Medium, "background", "goes on in the background";
    Device, Medium, "device", "uses a device or a special file";

    // What cannot be judged.
    TooManyParts, Medium, "too_many_parts", "has more than 16 parts";
    TooLong, Medium, "too_long", "is too long to be looked at completely";
    TooDeep, Medium, "too_deep", "is nested too deeply to be looked at completely";
    NotParsed, Medium, "not_parsed", "cannot be parsed";
    NotAscii, Medium, "not_ascii", "holds characters that look like others";
    NotAssessed, Medium, "not_assessed", "could not be assessed because of a fault in ClaudeNest";

    // Other tools.
    Edits, Medium, "edits", "changes a file of the project";
    McpTool, Medium, "mcp_tool", "uses a tool of an MCP server";
    UnknownTool, Medium, "unknown_tool", "uses a tool that is not known here";
    Schedules, Medium, "schedules", "makes something run later";
    NoSandbox, Medium, "no_sandbox", "asks to run outside Claude Code's sandbox";
}
