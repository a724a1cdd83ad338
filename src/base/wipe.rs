//! Wiping of what nobody may find in memory afterwards.
//!
//! `zeroize` writes one value at a time; texts, bodies and what is derived of them are long, and every answer has several.

use zeroize::optimization_barrier;

/// Empties `values`, bytes or numbers, with nothing left in its memory: not beyond its end either, where something longer may have stood.
pub fn wipe<T: Copy + Default>(values: &mut Vec<T>) {
    overwrite(values);
    // The zeros count as read, or writing them would be left out.
    optimization_barrier(values.as_slice());
    values.clear();
}

/// Zeros from end to end of what `values` has on the heap.
fn overwrite<T: Copy + Default>(values: &mut Vec<T>) {
    values.clear();
    values.resize(values.capacity(), T::default());
}

/// As [`wipe`], for text.
pub fn wipe_text(text: &mut String) {
    wipe(&mut std::mem::take(text).into_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_within_the_end_or_beyond_it() {
        let mut bytes = b"what a patient said".to_vec();
        let room = bytes.capacity();
        let place = bytes.as_ptr();
        bytes.truncate(4);
        overwrite(&mut bytes);
        assert!(bytes.len() == room && bytes.as_ptr() == place && bytes.iter().all(|&byte| byte == 0));
        wipe(&mut bytes);
        assert!(bytes.is_empty() && bytes.capacity() == room);
        let mut text = "said".to_owned();
        wipe_text(&mut text);
        assert!(text.is_empty());
    }
}
