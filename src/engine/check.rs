//! The whole-file walk.
