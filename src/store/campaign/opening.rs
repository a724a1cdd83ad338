//! What a store that is opened is compared with: label, owner, log, anchor.


