//! The policy's operations on the control socket, and rules that are made of approvals.

use std::path::{Path, PathBuf};

use claudenest_shared::approval::{Approval, Remember};
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::policy::{KnownRule, PolicyRule};
use claudenest_shared::wire::agent::{Op, Reply};
use serde_json::json;

use super::{Act, Origin, PolicyError};
use crate::guard::audit::AuditEntry;
use crate::guard::risk::{Scope, assess};
use crate::guard::{Guard, Who};
use crate::supervisor;

impl Guard {
    /// Does a policy operation: for people on this machine, never for a session or a relay.
    pub(in crate::guard) async fn policy_op(&self, op: Op, who: &Who) -> Result<Reply, WireError> {
        let Who::Local { label } = who else {
            return Err(WireError::new(
                ErrorCode::Forbidden,
                "Rules are read and changed on the machine itself, outside of its sessions: claudenest-agent policy.",
            ));
        };
        match op {
            Op::PolicyAdd { rule } => {
                self.policy().add((*rule).clone(), supervisor::now().wall).await.map_err(wire)?;
                self.write_rule_down("rule_added", &rule, label).await?;
                Ok(Reply::Done {})
            }
            Op::PolicyRemove { name } => {
                let Some((origin, rule)) =
                    self.policy().list().into_iter().find(|(_, rule)| rule.name == name)
                else {
                    return Err(WireError::new(
                        ErrorCode::NotFound,
                        format!("There is no rule `{name}`. List them: claudenest-agent policy show."),
                    ));
                };
                if origin == Origin::File {
                    return Err(WireError::new(
                        ErrorCode::Invalid,
                        format!(
                            "The rule `{name}` stands in the configuration file. Remove it there and restart the agent."
                        ),
                    ));
                }
                self.policy().remove(&name).await.map_err(|error| wire(error.into()))?;
                self.write_rule_down("rule_removed", &rule, label).await?;
                Ok(Reply::Done {})
            }
            _ => {
                let known = |(origin, rule)| KnownRule { rule, is_from_file: origin == Origin::File };
                Ok(Reply::Rules { rules: self.policy().list().into_iter().map(known).collect() })
            }
        }
    }

    async fn write_rule_down(
        &self,
        kind: &'static str,
        rule: &PolicyRule,
        by: &str,
    ) -> Result<(), WireError> {
        let body = json!({"rule": rule, "by": by});
        let line = AuditEntry { at: supervisor::now().wall, kind, session: rule.session, body };
        self.store().append_audit(&line).await.map_err(|error| wire(error.into()))
    }

    /// The rule that "always allow" makes of an approval, not added yet.
    ///
    /// # Errors
    /// `invalid` if it cannot be a rule.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(in crate::guard) async fn rule_of(
        &self,
        approval: &Approval,
        remember: Remember,
    ) -> Result<PolicyRule, WireError> {
        let approval = approval.clone();
        let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
        let making = tokio::task::spawn_blocking(move || {
            let cwd = PathBuf::from(&approval.cwd);
            let scope = Scope { cwd: &cwd, project: project_of(&cwd), home: home.as_deref() };
            let assessment = assess(&approval.tool, &approval.input, &scope);
            let act = Act {
                tool: &approval.tool,
                input: &approval.input,
                assessment: &assessment,
                session: approval.session,
                scope,
            };
            super::rule_of(&act, remember, &approval.id.short(), supervisor::now().wall)
        });
        let made =
            making.await.map_err(|_| WireError::new(ErrorCode::Internal, "The rule could not be made."))?;
        made.map_err(wire)
    }

    /// Adds a rule that somebody made by an answer.
    ///
    /// # Errors
    /// As [`super::Policy::add`].
    ///
    /// # Cancel safety
    /// As [`super::Policy::add`].
    pub(in crate::guard) async fn keep_rule(&self, rule: PolicyRule, by: &str) -> Result<(), WireError> {
        self.policy().add(rule.clone(), supervisor::now().wall).await.map_err(wire)?;
        self.write_rule_down("rule_added", &rule, by).await
    }
}

/// The git work tree around a directory, else the directory.
pub fn project_of(cwd: &Path) -> &Path {
    let has_git = |dir: &&Path| std::fs::symlink_metadata(dir.join(".git")).is_ok();
    cwd.ancestors().find(has_git).unwrap_or(cwd)
}

fn wire(error: PolicyError) -> WireError {
    match error {
        PolicyError::Rule(text) => WireError::new(ErrorCode::Invalid, text),
        PolicyError::Store(error) => {
            tracing::error!(%error, "a rule cannot be written");
            WireError::new(ErrorCode::Internal, "The rule cannot be written down. Is the disk full?")
        }
    }
}
