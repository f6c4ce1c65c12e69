//! Write and read GPT and MBR partition tables with their backups.
