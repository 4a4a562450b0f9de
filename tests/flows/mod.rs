mod commands;
mod crash;
mod faults;
mod job_done;
mod races;
mod redaction;
