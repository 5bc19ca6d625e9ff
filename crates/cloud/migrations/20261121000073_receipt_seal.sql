-- The receipts' key, encrypted with receipts.seal_key where that is set, which is not in the database; else in clear.
alter table receipt_key alter column seed drop not null,
    add column sealed_seed bytea,
    add constraint receipt_key_is_once check (num_nonnulls(seed, sealed_seed) = 1);
