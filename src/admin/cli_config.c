#include "admin/cli_util.h"

int cli_run_config_show(struct cli *c)
{
    return util_show(c, "/v1/config", NULL);
}

int cli_run_config_verify(struct cli *c)
{
    return util_show(c, "/v1/config/verify", NULL);
}
