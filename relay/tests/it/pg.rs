//! One PostgreSQL cluster for all tests of a run, and one database per test from a migrated template.
//!
//! Every test may be a process of its own. They find the cluster by its directory: whoever comes first starts it, whoever
//! leaves last stops it and removes everything. Locks of the file system decide, so that a killed test leaves nothing
//! that the next one could trip over.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use claudenest_relay::db::Db;
use claudenest_relay::db::cluster::{self, Answer};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use uuid::Uuid;

/// A database of its own, empty but migrated. Gone when dropped.
pub struct TestDb {
    options: PgConnectOptions,
    name: String,
    // After the fields above: the cluster may end once they are gone.
    cluster: Cluster,
}

impl TestDb {
    pub async fn new() -> Self {
        let cluster = Cluster::join().await;
        let name = format!("t_{}", Uuid::new_v4().simple());
        let admin = cluster.options("postgres");
        execute(&admin, &format!("create database {name} template {TEMPLATE}")).await;
        Self { options: cluster.options(&name), name, cluster }
    }

    pub fn db(&self) -> Db {
        Db::new(self.options.clone())
    }

    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Runs a statement beside the relay.
    pub async fn execute(&self, sql: &str) {
        execute(&self.options, sql).await;
    }

    /// For `--database-url`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost/{}?host={}", self.name, self.cluster.dir.join("pg").display())
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (admin, name) = (self.options.clone().database("postgres"), self.name.clone());
        // The test's own runtime cannot be used in a drop.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(execute(&admin, &format!("drop database {name} with (force)")));
        });
        assert!(thread.join().is_ok() || std::thread::panicking());
    }
}

const TEMPLATE: &str = "migrated";

async fn execute(options: &PgConnectOptions, sql: &str) {
    let mut connection = options.clone().disable_statement_logging().connect().await.unwrap();
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

struct Cluster {
    dir: PathBuf,
    /// Shared lock: as long as anybody holds one, the cluster stays.
    users: File,
}

impl Cluster {
    async fn join() -> Self {
        let dir = directory();
        let start = lock_file(&dir, "start.lock");
        flock(&start, FlockOperation::LockExclusive).unwrap();
        let users = lock_file(&dir, "users.lock");
        flock(&users, FlockOperation::LockShared).unwrap();
        let cluster = Self { dir, users };
        if !matches!(cluster::ask(&cluster.options("postgres")).await, Answer::Ready { .. }) {
            cluster.start().await;
        }
        let template = cluster.options(TEMPLATE);
        if !cluster.dir.join("migrated").exists() {
            cluster::ensure_database(&template).await.unwrap();
            let db = Db::new(template);
            db.migrate().await.unwrap();
            db.close().await;
            std::fs::write(cluster.dir.join("migrated"), "").unwrap();
        }
        // `start` is unlocked when it is closed here.
        cluster
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.dir.join("pg"))
            .username("postgres")
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }

    #[expect(clippy::zombie_processes, reason = "the server outlives this process; the last user ends it")]
    async fn start(&self) {
        self.stop();
        let bin = bin_dir();
        let (uid, gid) = server_user();
        let pg = self.dir.join("pg");
        std::fs::create_dir(&pg).unwrap();
        std::os::unix::fs::chown(&pg, Some(uid), Some(gid)).unwrap();
        std::fs::set_permissions(&pg, std::fs::Permissions::from_mode(0o700)).unwrap();
        let command = |program: &str| {
            let mut command = Command::new(bin.join(program));
            command.env_clear().env("LC_ALL", "C").current_dir("/").stdin(Stdio::null()).process_group(0);
            if rustix::process::geteuid().is_root() {
                command.uid(uid).gid(gid);
            }
            command
        };
        let data = pg.join("data");
        let output = command("initdb")
            .arg("-D")
            .arg(&data)
            .args(["-A", "trust", "-U", "postgres", "-N", "--no-instructions", "-E", "UTF8", "--no-locale"])
            .arg("--wal-segsize=1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let log = File::create(self.dir.join("log")).unwrap();
        let mut server = command("postgres");
        server.arg("-D").arg(&data).stdout(log.try_clone().unwrap()).stderr(log);
        for setting in [
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={}", pg.display()),
            "fsync=off".to_owned(),
            "synchronous_commit=off".to_owned(),
            "full_page_writes=off".to_owned(),
            "autovacuum=off".to_owned(),
            "shared_buffers=32MB".to_owned(),
            "max_connections=200".to_owned(),
        ] {
            server.arg("-c").arg(setting);
        }
        // It outlives this process if others still use it; the last one ends it by its number.
        let mut server = server.spawn().unwrap();
        let since = Instant::now();
        while !matches!(cluster::ask(&self.options("postgres")).await, Answer::Ready { .. }) {
            let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(server.try_wait().unwrap().is_none(), "the test cluster ended: {}", log());
            assert!(since.elapsed() < Duration::from_secs(60), "the test cluster is not ready: {}", log());
            crate::program::pause();
        }
    }

    /// Stops whatever server is there and removes it.
    fn stop(&self) {
        let pg = self.dir.join("pg");
        let pid = std::fs::read_to_string(pg.join("data/postmaster.pid"))
            .ok()
            .and_then(|text| text.lines().next()?.trim().parse().ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|pid| is_server(*pid)) {
            let _ = kill_process(pid, Signal::INT);
            let since = Instant::now();
            while is_server(pid) && test_kill_process(pid).is_ok() {
                assert!(since.elapsed() < Duration::from_secs(30), "the test cluster does not stop");
                crate::program::pause();
            }
        }
        let _ = std::fs::remove_file(self.dir.join("migrated"));
        if pg.exists() {
            std::fs::remove_dir_all(&pg).unwrap();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let start = lock_file(&self.dir, "start.lock");
        flock(&start, FlockOperation::LockExclusive).unwrap();
        // Only the last one gets it. The conversion gives the shared lock up first; `start` keeps others out meanwhile.
        if flock(&self.users, FlockOperation::NonBlockingLockExclusive).is_ok() {
            self.stop();
        }
    }
}

/// A running server, not one that has ended and waits to be collected.
fn is_server(pid: Pid) -> bool {
    match std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
        Ok(stat) => stat.contains("(postgres)") && !stat.contains("(postgres) Z"),
        Err(_) => !Path::new("/proc/self").exists() && test_kill_process(pid).is_ok(),
    }
}

fn directory() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    let base = Path::new("/dev/shm");
    let base = if base.is_dir() { base.to_owned() } else { PathBuf::from("/tmp") };
    // The migrations are part of the name: two checkouts do not share a template.
    let mut hash: u32 = 0;
    for byte in MIGRATIONS.iter().flat_map(|text| text.bytes()).chain(env!("CARGO_MANIFEST_DIR").bytes()) {
        hash = hash.wrapping_mul(31).wrapping_add(u32::from(byte));
    }
    let dir = base.join(format!("claudenest-test-pg-{uid}-{hash:08x}"));
    let _ = std::fs::create_dir(&dir);
    let meta = std::fs::symlink_metadata(&dir).unwrap();
    assert!(meta.is_dir() && meta.uid() == uid, "{} belongs to somebody else", dir.display());
    // The server's user passes through.
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

const MIGRATIONS: &[&str] = &[include_str!("../../migrations/0001_core.sql")];

fn lock_file(dir: &Path, name: &str) -> File {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join(name)).unwrap()
}

/// User and group of the server: PostgreSQL refuses root.
fn server_user() -> (u32, u32) {
    if !rustix::process::geteuid().is_root() {
        return (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = ["postgres:", "nobody:"]
        .iter()
        .find_map(|name| passwd.lines().find(|line| line.starts_with(name)))
        .expect("a user for the server");
    let mut ids = line.split(':').skip(2).map(|field| field.parse().unwrap());
    (ids.next().unwrap(), ids.next().unwrap())
}

fn bin_dir() -> PathBuf {
    let found = claudenest_relay::postgres::installations(None).unwrap();
    found[0].bin_dir.clone()
}
