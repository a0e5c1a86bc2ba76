//! Rules of the policy that people have made.

use std::path::Path;

use claudenest_shared::policy::PolicyRule;
use sqlx::Row;

use super::{Store, StoreError};

impl Store {
    /// Every rule, oldest first. One that this version cannot read is an error: to forget a deny rule would allow.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn rules(&self) -> Result<Vec<PolicyRule>, StoreError> {
        let rows =
            sqlx::query("SELECT rule FROM policy_rules ORDER BY position").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let text: String = row.try_get(0)?;
                Ok(serde_json::from_str(&text)?)
            })
            .collect()
    }

    /// The rules in `data_dir`, without changing anything: for commands while no daemon runs.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn peek_rules(data_dir: &Path) -> Result<Vec<PolicyRule>, StoreError> {
        let Some(store) = Self::reader(data_dir).await? else { return Ok(Vec::new()) };
        let rules = store.rules().await;
        store.close().await;
        rules
    }

    /// Writes a new rule.
    ///
    /// # Errors
    /// [`StoreError::Query`], also when there is one of its name.
    ///
    /// # Cancel safety
    /// Written or not.
    pub async fn add_rule(&self, rule: &PolicyRule) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO policy_rules (name, rule) VALUES (?1, ?2)")
            .bind(&rule.name)
            .bind(serde_json::to_string(rule)?)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    ///
    /// # Cancel safety
    /// Removed or not.
    pub async fn remove_rule(&self, name: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM policy_rules WHERE name = ?1").bind(name).execute(&self.pool).await?;
        Ok(())
    }
}
