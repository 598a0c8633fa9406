//! Kills, full disks and concurrent builds: the state directory stays sound.
