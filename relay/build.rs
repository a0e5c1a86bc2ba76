//! Rebuilds when a migration changes: `sqlx::migrate!` reads the directory, which cargo does not see.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
