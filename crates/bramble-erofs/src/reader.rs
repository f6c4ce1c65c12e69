//! Reading images, ours and others', without trusting a byte of them.
