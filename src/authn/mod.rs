//! Authentication, pure: a presented credential, the stored verifier and the time give who is asking.

pub mod credential;
