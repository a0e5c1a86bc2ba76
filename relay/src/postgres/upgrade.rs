//! Moves the built-in database to a newer PostgreSQL, with `pg_upgrade` and a full copy: the old cluster stays.

use std::path::PathBuf;

use super::account::Account;
use super::find::find;
use super::layout::{Layout, NAME};
use super::server::{Server, command, init_unfinished};
use super::{PostgresError, io};
use crate::config::Config;

/// What an upgrade did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upgraded {
    /// Version before.
    pub from: u32,
    /// Version now.
    pub to: u32,
    /// The cluster as it was.
    pub old: PathBuf,
}

/// Upgrades the cluster to the newest installed version. The caller holds the lock of the data directory: no relay runs.
///
/// # Errors
/// See [`PostgresError`]; the cluster is unchanged then.
pub async fn upgrade(config: &Config) -> Result<Upgraded, PostgresError> {
    let account = Account::for_server(config.postgres_user.as_deref())?;
    let layout = Layout::prepare(&config.data_dir, account)?;
    let installed = find(None)?;
    let Some(from) = layout.cluster_major()? else {
        return Err(PostgresError::NothingToUpgrade(format!(
            "There is no built-in database in {}.",
            layout.data().display()
        )));
    };
    let old = layout.choose(&installed)?;
    let new = match installed.first() {
        Some(newest) if newest.major > from => newest.clone(),
        _ => {
            return Err(PostgresError::NothingToUpgrade(format!(
                "The built-in database uses PostgreSQL {from}, and no newer version is installed. Nothing was done."
            )));
        }
    };
    let aside = layout.before_upgrade(from);
    if aside.exists() {
        return Err(PostgresError::NothingToUpgrade(format!(
            "{} is left from an earlier upgrade. Remove it if you no longer need it, and try again.",
            aside.display()
        )));
    }
    // pg_upgrade wants a cluster that was shut down in order; a killed one replays its log first.
    Server::up(&layout, &old).await?.stop().await;
    init_unfinished(&layout, &new).await?;
    let output = command(&layout, &new, "pg_upgrade")
        .current_dir(layout.root())
        .arg("-b")
        .arg(&old.bin_dir)
        .arg("-B")
        .arg(&new.bin_dir)
        .arg("-d")
        .arg(layout.data())
        .arg("-D")
        .arg(layout.unfinished())
        .arg("-s")
        .arg(layout.socket())
        .args(["-U", NAME])
        .output()
        .await
        .map_err(io("This cannot be run:", new.program("pg_upgrade")))?;
    if !output.status.success() {
        let text =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
        return Err(PostgresError::Upgrade { output: text.join("\n") });
    }
    std::fs::rename(layout.data(), &aside)
        .map_err(io("The old database cannot be put aside:", layout.data()))?;
    std::fs::rename(layout.unfinished(), layout.data())
        .map_err(io("The new database cannot be put in place:", layout.data()))?;
    Ok(Upgraded { from, to: new.major, old: aside })
}
