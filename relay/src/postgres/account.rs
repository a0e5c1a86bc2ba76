//! The system user that the server runs as. PostgreSQL refuses root.

use std::path::Path;

use super::PostgresError;

/// A system user other than the one that the relay runs as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

impl Account {
    /// The server's user if the relay is root, `None` if the server runs as the relay's own user.
    ///
    /// # Errors
    /// When the relay is root and there is no such user.
    pub fn for_server(configured: Option<&str>) -> Result<Option<Self>, PostgresError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        // Never `nobody` unless asked for: whatever else runs under that name could enter the database, and so every account.
        let names: Vec<&str> = configured.map_or(vec!["postgres", "_postgres"], |name| vec![name]);
        let found = names.iter().find_map(|name| find(&passwd, name));
        match found {
            Some(account) if account.uid != 0 => Ok(Some(account)),
            _ => Err(PostgresError::NoUser { name: names.first().copied().unwrap_or_default().to_owned() }),
        }
    }

    /// True if this user may pass through a directory with these owners and mode.
    pub fn may_enter(&self, dir: &Path) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let Ok(meta) = std::fs::metadata(dir) else { return false };
        let bit = if meta.uid() == self.uid {
            0o100
        } else if meta.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        meta.mode() & bit != 0
    }
}

/// A line is `name:password:uid:gid:…`. macOS writes negative ids (`nobody` is -2).
fn find(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let mut id = || {
        let number: i64 = fields.next()?.parse().ok()?;
        u32::try_from(number).ok().or_else(|| i32::try_from(number).ok().map(i32::cast_unsigned))
    };
    Some(Account { name: name.to_owned(), uid: id()?, gid: id()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_from_passwd_lines() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:*:-2:-2:x:/var/empty:/bin/false\npostgres:x:101:104::/x:/y\nbad:x:y:z\n";
        assert_eq!(find(passwd, "postgres"), Some(Account { name: "postgres".into(), uid: 101, gid: 104 }));
        assert_eq!(find(passwd, "nobody").map(|account| account.uid), Some(u32::MAX - 1));
        assert_eq!(find(passwd, "bad"), None);
        assert_eq!(find(passwd, "post"), None);
    }
}
