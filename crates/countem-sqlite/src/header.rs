//! Identification of a database file.

use rusqlite::Connection;

/// Header fields and content by which a database file is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Program that the file belongs to, zero for none.
    pub application_id: i32,
    /// Version of the tables, as counted by that program.
    pub user_version: i32,
    /// Number of tables, indexes, views and triggers.
    pub objects: i64,
}

impl Header {
    /// Reads the header without writing to the file.
    ///
    /// One statement reads all of it: between two, another process may give the file its owner.
    ///
    /// # Errors
    /// The file is locked, damaged or no database.
    pub fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
            FROM pragma_application_id, pragma_user_version";
        connection.query_row(sql, [], |row| {
            Ok(Self { application_id: row.get(0)?, user_version: row.get(1)?, objects: row.get(2)? })
        })
    }

    /// Tells whether the database is empty and belongs to no program.
    pub fn is_empty(self) -> bool {
        self == Self { application_id: 0, user_version: 0, objects: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_tells_owner_version_and_content() {
        let header = |sql| {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(sql).unwrap();
            Header::read(&connection).unwrap()
        };
        assert!(header("").is_empty());
        let owned = header("PRAGMA application_id = 7; PRAGMA user_version = 3; CREATE TABLE t (x)");
        assert_eq!(owned, Header { application_id: 7, user_version: 3, objects: 1 });
        for sql in ["CREATE TABLE t (x)", "PRAGMA user_version = 1", "PRAGMA application_id = 1"] {
            assert!(!header(sql).is_empty(), "{sql}");
        }
    }
}
