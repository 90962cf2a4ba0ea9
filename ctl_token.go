package main

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tracegate/tracegate/controlplane/access"
)

func (c Config) tokens() string { return filepath.Join(c.secrets(), secretTokens) }

// tokenCommand needs no running control plane: it changes the file that one watches.
func (c *control) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "who may use the control API: names, roles and until when, of the data folder on this machine", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			all, err := readTokens(cfg.tokens())
			if err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), slices.Concat([]access.Token{}, all), func(w io.Writer) { printTokens(w, all) })
		},
	}
	cmd.AddCommand(c.addTokenCommand(), c.removeTokenCommand())
	return cmd
}

// newToken is what is shown once.
type newToken struct {
	access.Token
	Secret string `json:"token"`
}

func (c *control) addTokenCommand() *cobra.Command {
	var role string
	var lasts time.Duration
	cmd := &cobra.Command{
		Use: "add NAME", Short: "make a token and print it, once; the control plane knows it from then on", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var expires time.Time
			if lasts > 0 {
				expires = time.Now().Add(lasts).UTC().Truncate(time.Second)
			}
			var random [sha256.Size]byte
			_, _ = rand.Read(random[:]) // never returns an error
			made := newToken{Secret: access.New(random)}
			made.Token = access.Of(args[0], access.Role(role), made.Secret, expires)
			err := c.changeTokens(func(all []access.Token) ([]access.Token, error) { return append(all, made.Token), nil })
			if err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), made, func(w io.Writer) { fmt.Fprintln(w, made.Secret) })
		},
	}
	cmd.Flags().StringVar(&role, "role", string(access.Viewer), "viewer (may look and ask) or operator (may change things, too)")
	cmd.Flags().DurationVar(&lasts, "for", 0, "how long it counts (0: until it is removed)")
	return cmd
}

func (c *control) removeTokenCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "take a token away", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return c.changeTokens(func(all []access.Token) ([]access.Token, error) {
				left := slices.DeleteFunc(slices.Clone(all), func(t access.Token) bool { return t.Name == args[0] })
				if len(left) == len(all) {
					return nil, fmt.Errorf("there is no token %q", args[0])
				}
				return left, nil
			})
		},
	}
}

// changeTokens writes the file anew, unless it could not be read again then.
func (c *control) changeTokens(change func([]access.Token) ([]access.Token, error)) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	all, err := readTokens(cfg.tokens())
	if err != nil {
		return err
	}
	if all, err = change(all); err != nil {
		return err
	}
	document, err := access.Format(all)
	if err != nil {
		return err
	}
	if _, err := access.Parse(document); err != nil {
		return codedError{exitRefused, err}
	}
	if err := replaceFile(cfg.tokens(), document); err != nil {
		return fmt.Errorf("%w; is --data the folder of a tracegate that was started once?", err)
	}
	return nil
}

// readTokens are none where there is no file.
func readTokens(file string) ([]access.Token, error) {
	document, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	all, err := access.Parse(document)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return all, nil
}

func printTokens(w io.Writer, all []access.Token) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "NAME\tROLE\tEXPIRES")
	for _, token := range all {
		expires := "-"
		if !token.Expires.IsZero() {
			expires = token.Expires.Local().Format(time.DateTime)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", token.Name, token.Role, expires)
	}
}
