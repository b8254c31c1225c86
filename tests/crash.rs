//! Nothing that was acknowledged is lost and nothing is counted twice: processes that are killed at level `journal`, disks
//! that are full, stores that are away, directories that are copied and clocks that are set.

mod books;
mod node;

mod clock;
mod copy;
mod disk;
mod fail_points;
mod first_schema;
mod keyed;
mod kill;
mod mongodb;
mod outage;
