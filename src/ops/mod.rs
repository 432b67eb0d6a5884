//! What a node tells its operators: whether it can do its work, and whether every partition moves. Must not contain
//! work of a role.

pub mod health;
mod beat;
pub mod overview;
pub mod pulse;
mod setback;
