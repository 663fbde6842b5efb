"""Client protocols: `interface` says what one is, `registry` lists them, every other module is one."""
