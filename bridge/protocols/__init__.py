"""Client protocols: `interface` defines what one is, `registry` lists them, and every other package is one."""
