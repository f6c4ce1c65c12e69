//! Write and read EROFS images with stable placement.
