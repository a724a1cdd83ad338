//! META: the few facts of the instance, each under its name.

use serde::{Deserialize, Serialize};

use crate::base::id::{LogId, TenantId, UserId};
use crate::store::tables::{Bytes, META};
use crate::store::tx::{StoreError, Tx, row, value};

const INSTANCE: &[u8] = b"instance";

/// Who this instance is, since `init`.
#[derive(Serialize, Deserialize)]
pub struct InstanceRow {
    /// The version of the tables; see `store/migrate.rs`.
    pub schema: u32,
    /// The workspace.
    pub tenant: TenantId,
    /// Its label, sealed under the tenant's DEK.
    pub label: Bytes,
    /// The owner: the person of `RM_OWNER_EMAIL`.
    pub owner: UserId,
    /// The audit log.
    pub log: LogId,
}

/// The instance's row.
pub fn instance(tx: &Tx<'_>) -> Result<Option<InstanceRow>, StoreError> {
    tx.get(META, INSTANCE)?.map(|bytes| row("meta", &bytes)).transpose()
}

/// Writes the instance's row.
pub fn put_instance(tx: &mut Tx<'_>, instance: &InstanceRow) {
    tx.put(META, INSTANCE.to_vec(), value(instance));
}
