/** What can be done with a session; every place that offers it does it the same way. */
import { useI18n } from "vue-i18n";

import { api } from "@/api/client";
import type { SessionInfo, SessionState } from "@/api/types";
import { useDialogs } from "@/stores/dialogs";
import { useLive } from "@/stores/live";
import { useNotices } from "@/stores/notices";

import { useErrors } from "./errors";

export const isLive = (state: SessionState) =>
  state === "starting" || state === "running" || state === "waiting_input" || state === "paused";
export const isFinal = (state: SessionState) =>
  state === "completed" || state === "failed" || state === "terminated";

/** The rule of `valid_name` in `shared/src/session.rs`. */
export const isValidName = (name: string) => /^[\p{L}\p{N}][\p{L}\p{N}\-_.]{0,63}$/u.test(name);

export function useSessionActions() {
  const { t } = useI18n();
  const live = useLive();
  const dialogs = useDialogs();
  const notices = useNotices();
  const { attempt } = useErrors();

  async function run(action: () => Promise<SessionInfo>): Promise<boolean> {
    const done = await attempt(action);
    if (done) live.learnSession(done.value);
    return done !== null;
  }

  return {
    async stop(session: SessionInfo): Promise<void> {
      if (await run(() => api.stopSession(session.id))) {
        notices.add("info", t("actions.stopped", { name: session.name }));
      }
    },
    async kill(session: SessionInfo): Promise<void> {
      const { name } = session;
      const isSure = await dialogs.confirm({
        title: t("actions.killTitle", { name }),
        text: t("actions.killText"),
        confirm: t("actions.killConfirm", { name }),
        isDangerous: true,
      });
      if (isSure) await run(() => api.stopSession(session.id, 0));
    },
    pause: (session: SessionInfo) => run(() => api.controlSession(session.id, "pause")),
    resume: (session: SessionInfo) => run(() => api.controlSession(session.id, "resume")),
    hibernate: (session: SessionInfo) => run(() => api.controlSession(session.id, "hibernate")),
    async restart(session: SessionInfo): Promise<void> {
      if (isLive(session.state)) {
        const isSure = await dialogs.confirm({
          title: t("actions.restartTitle", { name: session.name }),
          text: t("actions.restartText"),
          confirm: t("actions.restart"),
        });
        if (!isSure) return;
      }
      await run(() => api.controlSession(session.id, "restart"));
    },
    async rename(session: SessionInfo): Promise<SessionInfo | null> {
      const name = await dialogs.ask({
        title: t("actions.renameTitle", { name: session.name }),
        confirm: t("app.save"),
        input: {
          label: t("actions.renameLabel"),
          value: session.name,
          check: (value) => (isValidName(value.trim()) ? null : t("new.badName")),
        },
      });
      if (name === null || name.trim() === session.name) return null;
      const done = await attempt(() => api.renameSession(session.id, name.trim()));
      if (done) live.learnSession(done.value);
      return done?.value ?? null;
    },
    async forget(session: SessionInfo): Promise<boolean> {
      const { name } = session;
      const isSure = await dialogs.confirm({
        title: t("actions.forgetTitle", { name }),
        text: t("actions.forgetText"),
        confirm: t("actions.forgetConfirm", { name }),
        isDangerous: true,
      });
      if (!isSure) return false;
      const done = await attempt(() => api.forgetSession(session.id));
      if (done) notices.add("info", t("actions.forgotten", { name }));
      return done !== null;
    },
  };
}
