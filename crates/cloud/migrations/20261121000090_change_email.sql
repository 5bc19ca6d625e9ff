-- A link that goes to the address an account is to have.
alter table mail_token drop constraint mail_token_purpose_known;
alter table mail_token add constraint mail_token_purpose_known
    check (purpose in ('verify_email', 'reset_password', 'change_email'));
