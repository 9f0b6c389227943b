"""The checklist of generated apps, itself on trial: sabotaged apps, a naive one, an old one."""
