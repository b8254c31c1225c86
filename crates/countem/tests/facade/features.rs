//! Features do not pull in more than they name.

use std::process::Command;

/// Returns the crates that a service gets with `features` and no default ones.
fn crates(package: &str, features: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{lib}"])
        .args(["--package", package, "--no-default-features", "--features", features])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

fn has(crates: &[String], name: &str) -> bool {
    crates.iter().any(|other| other == name)
}

const SQLITE: [&str; 3] = ["countem_store_sqlite", "rusqlite", "libsqlite3_sys"];
const MONGODB: [&str; 2] = ["mongodb", "countem_store_mongodb"];

#[test]
fn sqlite_comes_only_with_its_features() {
    for features in ["", "mongodb", "config,metrics", "srv"] {
        let crates = crates("countem", features);
        assert!(SQLITE.iter().all(|name| !has(&crates, name)), "`{features}` brings SQLite");
    }
    for features in ["sqlite", "journal"] {
        assert!(has(&crates("countem", features), "rusqlite"), "`{features}` lacks SQLite");
    }
}

#[test]
fn mongodb_driver_comes_only_with_its_features() {
    for features in ["", "sqlite,journal,config,metrics"] {
        let crates = crates("countem", features);
        assert!(MONGODB.iter().all(|name| !has(&crates, name)), "`{features}` brings the driver");
    }
    assert!(has(&crates("countem", "mongodb"), "mongodb"));
}

#[test]
fn dns_resolver_comes_only_with_srv() {
    assert!(!has(&crates("countem", "mongodb"), "hickory_resolver"));
    assert!(has(&crates("countem", "srv"), "hickory_resolver"));
    assert!(has(&crates("countem-cli", "srv"), "hickory_resolver"));
}

#[test]
fn reads_do_without_actors() {
    assert!(!has(&crates("countem-query", ""), "actix"));
}
