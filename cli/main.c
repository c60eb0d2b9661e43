#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static const struct command *const commands[] = {
    &command_model,  &command_profile, &command_plan,     &command_run,
    &command_report, &command_sample,  &command_validate, &command_bench,
};

static int exit_code_of(enum status status)
{
    switch (status) {
    case STATUS_OK:
        return 0;
    case STATUS_USAGE:
        return 2;
    case STATUS_INFEASIBLE:
        return 3;
    default:
        return 1;
    }
}

static void print_overview(FILE *stream)
{
    fputs("temper: plan, run and measure the parallel training of large models\n\n"
          "Usage: temper COMMAND [options]\n\nCommands:\n",
          stream);
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        fprintf(stream, "  %-9s %s\n", commands[i]->spec->name, commands[i]->spec->summary);
    fputs(
        "\n`temper COMMAND --help` lists a command's options. A first round on this machine:\n\n"
        "  temper profile --model gpt2 --layers 4 --hidden 128 --heads 4 --seq-length 64 \\\n"
        "                 --vocab-size 256 --store t.db\n"
        "  temper plan    --model gpt2 --layers 4 --hidden 128 --heads 4 --seq-length 64 \\\n"
        "                 --vocab-size 256 --store t.db --ranks 2 --global-batch 24 -o plan.json\n"
        "  temper run     plan.json --data TEXT --steps 500 --store t.db\n"
        "  temper report  --store t.db --html report.html\n\n"
        "Exit codes: 0 done, 1 the work failed, 2 wrong usage, 3 no feasible plan.\n",
        stream);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        if (strcmp(commands[i]->spec->name, name) == 0)
            return commands[i];
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[COUNT_OF(commands)];
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        names[i] = commands[i]->spec->name;
    const char *near = nearest_word(name, names, COUNT_OF(names));
    fprintf(stderr, "temper: unknown command '%s'%s%s%s; see `temper --help`\n", name,
            near == NULL ? "" : "; did you mean '", near == NULL ? "" : near,
            near == NULL ? "" : "'?");
    return 2;
}

static bool wants(int argc, char **argv, const char *word)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], word) == 0)
            return true;
    return false;
}

static int print_text(struct text *text)
{
    int code = text->failed ? 1 : 0;
    if (text->data != NULL)
        puts(text->data);
    text_free(text);
    return code;
}

static int run_command(const struct command *command, int argc, char **argv)
{
    struct text text = {0};
    if (wants(argc, argv, "--help") || wants(argc, argv, "-h")) {
        options_help(command->spec, &text);
        return print_text(&text);
    }
    if (wants(argc, argv, "--man")) {
        options_man_page(command->spec, temper_version(), &text);
        return print_text(&text);
    }
    struct error err = {0};
    enum status status = command->run(argc, argv, &err);
    console_progress_end();
    if (status != STATUS_OK && err.message[0] != '\0')
        fprintf(stderr, "temper %s: %s\n", command->spec->name, err.message);
    bool output_lost = fflush(stdout) != 0 || ferror(stdout);
    if (output_lost && status == STATUS_OK) {
        fprintf(stderr, "temper %s: writing to standard output failed\n", command->spec->name);
        return 1;
    }
    return exit_code_of(status);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_overview(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_overview(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("temper %s\n", temper_version());
        return 0;
    }
    const struct command *command = find_command(argv[1]);
    if (command == NULL)
        return unknown_command(argv[1]);
    return run_command(command, argc - 2, argv + 2);
}
